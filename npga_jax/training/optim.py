"""One Adam over all parameters, with a step size per group; and which are matrices.

All groups share Adam's betas, so one Adam followed by a factor per leaf is the same as
one optimiser per group, and its moments have the parameters' own structure: density
control can edit them row by row.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from npga_jax.core import AvatarParams, Gaussians


class GroupRates(NamedTuple):
    """Step size of each group at the start, and how far some of them fall."""

    means: float = 1.6e-4
    detail: float = 1.5e-3
    coarse: float = 5e-5
    screen: float = 1e-3
    quats: float = 1e-3
    log_scales: float = 5e-3
    logit_opacities: float = 5e-2
    sh: float = 2.5e-3
    features: float = 2.5e-3
    final_fraction: float = 0.05


class GroupRateState(NamedTuple):
    """Steps taken."""

    count: jax.Array  # [] int32


_DECAYING = ("means", "detail", "coarse", "screen", "features")


def _labels(params: AvatarParams) -> AvatarParams:
    def everywhere(tree, name):
        return jax.tree.map(lambda _: name, tree)

    return AvatarParams(
        gaussians=Gaussians(*Gaussians._fields),
        detail=everywhere(params.detail, "detail"),
        coarse=everywhere(params.coarse, "coarse"),
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


def make_optimizer(rates: GroupRates, num_steps: int) -> optax.GradientTransformation:
    """Adam with 3DGS's epsilon and a step size per group."""
    return optax.chain(optax.scale_by_adam(eps=1e-15), scale_by_group(rates, num_steps))
