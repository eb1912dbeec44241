"""The auto-decoder: networks and the codes of all heads, trained together."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from npga_jax.core import Array, Params, axes_of_matrices, exact_products
from npga_jax.nphm import (
    Codes,
    FieldLossWeights,
    NPHMConfig,
    canonical_field,
    deform,
    predict_anchors,
    total_loss,
    training_losses,
)
from npga_jax.prior.batches import FreePoints, NearPoints, TrainBatch


class Codebook(NamedTuple):
    """A code for every person and every scan. Registered scans bring no colours yet."""

    geo: Array  # [I, lat_dim_geo]
    exp: Array  # [N, lat_dim_exp]


class CodeMoments(NamedTuple):
    """Adam's state of a codebook, row by row."""

    first: Codebook
    second: Codebook
    visits: Codebook  # [I, 1], [N, 1]


class PriorState(NamedTuple):
    """Everything a checkpoint holds."""

    step: jax.Array  # [] int32, steps taken
    weights: Params  # {"identity", "deformation"}
    opt_state: optax.OptState
    codes: Codebook
    moments: CodeMoments
    halted: jax.Array  # [] bool: a step gave numbers that are not finite


class Rates(NamedTuple):
    """Step sizes at the start; all fall to `final_fraction` along a cosine."""

    networks: float = 2e-3
    matrices: float = 8e-3
    codes: float = 1e-3
    final_fraction: float = 0.02
    weight_decay: float = 1e-4
    clip: float = 1.0


class NearWeights(NamedTuple):
    """Weights of the losses that MonoNPHM does not have, see `batches`."""

    sdf: float = 2.0
    corresp: float = 1000.0
    free: float = 1.0


REGISTERED_WEIGHTS = FieldLossWeights(
    anchors=100.0, reg_shape=1e-4, reg_expr=1e-4, symm_dist=1e-4
)
"""MonoNPHM's weights, but for two things. Codes are pulled less: they start where the
registration puts them (`initial_codes`), many times larger than codes that grow from
zero. Anchors are pulled more: those codes tell where anchors are from the start, and
local networks learn sooner around anchors that stay."""


def make_optimizer(rates: Rates, num_steps: int) -> optax.GradientTransformation:
    """Muon for the matrices, AdamW for the rest; networks clipped as in MonoNPHM.

    MonoNPHM trains all by AdamW. With Muon (Jordan et al. 2024: a step of equal length
    along all singular directions) the deformation gets as far in a third of the steps
    (docs/head-model.md).
    """

    def schedule(rate: float) -> optax.Schedule:
        return optax.cosine_decay_schedule(rate, num_steps, rates.final_fraction)

    def one() -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(rates.clip),
            optax.contrib.muon(
                schedule(rates.matrices),
                adam_learning_rate=schedule(rates.networks),
                weight_decay=rates.weight_decay,
                adam_weight_decay=rates.weight_decay,
                muon_weight_dimension_numbers=axes_of_matrices,
            ),
        )

    return optax.partition(
        {"identity": one(), "deformation": one()},
        {"identity": "identity", "deformation": "deformation"},
    )


def initial_state(
    weights: Params,
    codes: Codebook,
    optimizer: optax.GradientTransformation,
) -> PriorState:
    """The state before the first step."""
    return PriorState(
        step=jnp.zeros((), jnp.int32),
        weights=weights,
        opt_state=optimizer.init(weights),
        codes=codes,
        moments=CodeMoments(
            # Not one tree of zeros for both: the step is given its buffers.
            first=jax.tree.map(jnp.zeros_like, codes),
            second=jax.tree.map(jnp.zeros_like, codes),
            visits=jax.tree.map(lambda c: jnp.zeros((c.shape[0], 1)), codes),
        ),
        halted=jnp.zeros((), bool),
    )


_FREE_MARGIN = 0.002


def near_losses(
    params: Params, cfg: NPHMConfig, near: NearPoints, free: FreePoints, codes: Codes
) -> dict[str, jax.Array]:
    """Errors of distance and of correspondence beside the surface.

    Returns:
      "near_sdf", the mean absolute error where the distance is known, NPHM units;
      "near_corresp", the mean squared error of the canonical position; "free", by how
      much points in the air lie inside.
    """
    anchors = predict_anchors(params, cfg, codes.geo)
    points = jnp.concatenate([near.posed, free.posed], axis=1)
    queries = deform(params, cfg, points, codes, anchors)
    field = canonical_field(params, cfg, queries, codes, anchors, with_color=False)
    count = near.posed.shape[1]
    error = jnp.abs(field.sdf[:, :count] - near.sdf) * near.valid
    inside = jax.nn.relu(_FREE_MARGIN - field.sdf[:, count:]) * free.valid
    return {
        "near_sdf": jnp.sum(error) / jnp.maximum(jnp.sum(near.valid), 1),
        "near_corresp": jnp.mean((queries[:, :count, :3] - near.neutral) ** 2),
        "free": jnp.sum(inside) / jnp.maximum(jnp.sum(free.valid), 1),
    }


def make_train_step(
    cfg: NPHMConfig,
    anchors_mean: np.ndarray,
    optimizer: optax.GradientTransformation,
    rates: Rates,
    num_steps: int,
    *,
    code_noise: float = 0.0,
    seed: int = 0,
    weights: FieldLossWeights = REGISTERED_WEIGHTS,
    near_weights: NearWeights = NearWeights(),  # noqa: B008 - immutable
):
    """Builds the pure step: (state, batch) -> (state, losses).

    Args:
      code_noise: standard deviation of what is added to codes, another draw each step.
      seed: of the noise.

    A step whose loss or gradient is not finite changes nothing but `halted`, and a
    halted state refuses all later steps.
    """
    code_rate = optax.cosine_decay_schedule(
        rates.codes, num_steps, rates.final_fraction
    )

    def objective(trained, batch: TrainBatch, key: jax.Array):
        net, book = trained
        params = {**net, "anchors_mean": jnp.asarray(anchors_mean)}
        geo, exp = book.geo[batch.people], book.exp[batch.scans]
        key_geo, key_exp = jax.random.split(key)
        codes = Codes(
            geo=geo + code_noise * jax.random.normal(key_geo, geo.shape),
            app=jnp.zeros((len(batch.people), cfg.lat_dim_app)),
            exp=exp + code_noise * jax.random.normal(key_exp, exp.shape),
        )
        losses = training_losses(
            params, cfg, batch.official, codes, batch.random_points
        )
        near = near_losses(params, cfg, batch.near, batch.free, codes)
        total = total_loss(losses, weights)
        total += near_weights.sdf * near["near_sdf"]
        total += near_weights.corresp * near["near_corresp"]
        total += near_weights.free * near["free"]
        return total, {**losses, **near, "total": total}

    @exact_products
    def step(state: PriorState, batch: TrainBatch):
        (_, losses), (grads, code_grads) = jax.value_and_grad(objective, has_aux=True)(
            (state.weights, state.codes),
            batch,
            jax.random.fold_in(jax.random.key(seed), state.step),
        )
        finite = jnp.isfinite(optax.tree.norm((grads, code_grads)))
        finite &= jnp.isfinite(losses["total"]) & ~state.halted
        updates, opt_state = optimizer.update(grads, state.opt_state, state.weights)
        rows = Codebook(batch.people, batch.scans)
        codes, moments = update_codes(
            state.codes, state.moments, code_grads, rows, code_rate(state.step)
        )
        moved = PriorState(
            step=state.step + 1,
            weights=optax.apply_updates(state.weights, updates),
            opt_state=opt_state,
            codes=codes,
            moments=moments,
            halted=state.halted,
        )
        kept = state._replace(halted=jnp.ones((), bool))
        return jax.tree.map(lambda a, b: jnp.where(finite, a, b), moved, kept), losses

    return jax.jit(step, donate_argnums=0)


_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


def update_codes(
    codes: Codebook,
    moments: CodeMoments,
    grads: Codebook,
    rows: Codebook,
    rate: ArrayLike,
) -> tuple[Codebook, CodeMoments]:
    """Adam on the rows that a step has seen; others rest, moments included.

    Args:
      grads: of all rows, zero where not seen.
      rows: indices of the rows seen.
      rate: [] step size.
    """

    def one(code, first, second, visits, grad, index):
        seen = jnp.zeros((code.shape[0], 1), bool).at[index].set(True)
        count = visits + seen
        new_first = _BETA1 * first + (1 - _BETA1) * grad
        new_second = _BETA2 * second + (1 - _BETA2) * grad**2
        safe = jnp.maximum(count, 1)
        direction = new_first / (1 - _BETA1**safe)
        direction /= jnp.sqrt(new_second / (1 - _BETA2**safe)) + _EPSILON
        return (
            jnp.where(seen, code - rate * direction, code),
            jnp.where(seen, new_first, first),
            jnp.where(seen, new_second, second),
            count,
        )

    results = [
        one(*leaves)
        for leaves in zip(
            codes,
            moments.first,
            moments.second,
            moments.visits,
            grads,
            rows,
            strict=True,
        )
    ]
    new, first, second, visits = (
        Codebook(*parts) for parts in zip(*results, strict=True)
    )
    return new, CodeMoments(first, second, visits)
