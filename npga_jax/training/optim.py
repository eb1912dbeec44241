"""One Adam over all parameters, with a step size per group.

All groups share Adam's betas, so one Adam followed by a factor per leaf is the same as
one optimiser per group, and its moments have the parameters' own structure: density
control can edit them row by row.
"""

import dataclasses
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from npga_jax.core import AvatarParams, Gaussians
from npga_jax.training.settings import OptimConfig


class GroupRates(NamedTuple):
    """Step size of each group at the start, and how far some of them fall."""

    means: float
    forward: float
    detail: float
    screen: float
    quats: float
    log_scales: float
    logit_opacities: float
    sh: float
    features: float
    final_fraction: float


_DETAIL, _DETAIL_BESIDE_F = 1.5e-3, 5e-4


def group_rates(cfg: OptimConfig, *, has_forward: bool) -> GroupRates:
    """Step sizes of the settings.

    Args:
      has_forward: whether G has F beside it, which decides its usual step size.
    """
    values = dataclasses.asdict(cfg)
    values["forward"] = values.pop("coarse")
    if values["detail"] is None:
        values["detail"] = _DETAIL_BESIDE_F if has_forward else _DETAIL
    return GroupRates(**values)


class GroupRateState(NamedTuple):
    """Where the schedule is."""

    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride] - [] int32, steps taken


_DECAYING = ("means", "detail", "forward", "screen", "features")


def _labels(params: AvatarParams) -> Any:
    def everywhere(tree, name):
        return jax.tree.map(lambda _: name, tree)

    return AvatarParams(
        gaussians=Gaussians(*cast(Any, Gaussians._fields)),
        forward=everywhere(params.forward, "forward"),
        detail=everywhere(params.detail, "detail"),
        screen=everywhere(params.screen, "screen"),
    )


def scale_by_group(rates: GroupRates, num_steps: int) -> optax.GradientTransformation:
    """Multiplies updates by minus the step size of their group.

    Centres, features and networks decay exponentially to `final_fraction`; the
    coefficients beyond degree 0 of the colour learn 20 times slower, as in 3DGS.
    """

    def init(params):
        del params
        return GroupRateState(jnp.zeros((), jnp.int32))

    def update(updates, state, params=None):
        del params
        progress = jnp.minimum(state.count / max(num_steps, 1), 1.0)
        decay = rates.final_fraction**progress

        def scale(update, label):
            if label == "bindings":
                return jnp.zeros_like(update)
            rate = getattr(rates, label) * (decay if label in _DECAYING else 1.0)
            if label == "sh":
                rest = jnp.full(update.shape[1] - 1, 1 / 20)
                rate = rate * jnp.concatenate([jnp.ones(1), rest])[:, None]
            return -rate * update

        updates = jax.tree.map(scale, updates, _labels(updates))
        return updates, GroupRateState(state.count + 1)

    return optax.GradientTransformation(init, update)


def make_optimizer(
    cfg: OptimConfig, num_steps: int, *, has_forward: bool
) -> optax.GradientTransformation:
    """Adam with 3DGS's epsilon and a step size per group.

    Args:
      has_forward: see `group_rates`.
    """
    rates = group_rates(cfg, has_forward=has_forward)
    return optax.chain(optax.scale_by_adam(eps=1e-15), scale_by_group(rates, num_steps))
