"""The training state and one optimiser step, as pure functions."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from npga_jax.avatar import DetailFn, deform_gaussians, head_viewmats, render_views
from npga_jax.deformation import coarse_identity, residual_energy
from npga_jax.losses import LossWeights, composite_target, photometric_loss
from npga_jax.rasterizer import rasterization
from npga_jax.types import AvatarParams, Batch, CoarseFn, RasterizeFn

Metrics = Mapping[str, jax.Array]


class TrainState(NamedTuple):
    """All that a run needs to go on: it is what a checkpoint holds."""

    step: jax.Array  # [] int32, steps taken
    params: AvatarParams
    opt_state: optax.OptState
    alive: jax.Array  # [N] bool, slots in use
    halted: jax.Array  # [] bool, the last step was refused: so are all that follow


def init_train_state(
    params: AvatarParams, alive: jax.Array, optimizer: optax.GradientTransformation
) -> TrainState:
    """State before the first step."""
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        alive=alive,
        halted=jnp.zeros((), bool),
    )
    # A weak type would make the second step compile anew.
    return jax.tree.map(lambda x: jnp.asarray(x, x.dtype), state)


def make_train_step(
    *,
    optimizer: optax.GradientTransformation,
    width: int,
    height: int,
    max_isects: int,
    detail_fn: DetailFn,
    coarse_fn: CoarseFn = coarse_identity,
    rasterize_fn: RasterizeFn = rasterization,
    loss_weights: LossWeights = LossWeights(),  # noqa: B008 - a constant
    residual_weight: float = 0.0,
    code_noise: float = 0.0,
    seed: int = 0,
    background: float = 1.0,
    axis_name: str | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Binds the choices of a run into `step(state, batch) -> (state, metrics)`.

    All views of a batch show one timestep, so the cloud is deformed once. A step whose
    gradient is not finite leaves the state as it was, says so in `is_finite`, and halts
    it: later steps are refused too, so that the state stays the one before the bad step
    however late the caller looks.

    Args:
      code_noise: standard deviation of the noise on the codes that G reads, in G's own
        units of them. It acts on G as ridge regression and keeps it from reading the
        trackers' noise; F, which knows what codes mean, gets them as they are.
      seed: of that noise, which depends on nothing else but the step.
      axis_name: average gradient and metrics over this axis (`parallel`).

    Returns:
      The step. Its metrics: loss, its terms, psnr (dB, whole frame, on the background),
      num_alive, num_isects (largest of the views), num_dropped and num_invalid (sums),
      grad_norm, is_finite.
    """

    def loss_fn(
        params: AvatarParams, alive: jax.Array, batch: Batch, noise: jax.Array | float
    ):
        splats, residuals = deform_gaussians(
            params,
            alive,
            batch.expr,
            detail_fn=detail_fn,
            coarse_fn=coarse_fn,
            detail_expr=batch.expr + noise,
        )
        out = render_views(
            splats,
            head_viewmats(batch.viewmats, batch.world_from_head),
            batch.Ks,
            width=width,
            height=height,
            max_isects=max_isects,
            background=background,
            rasterize_fn=rasterize_fn,
        )
        target, matte = composite_target(batch.rgb, batch.alpha, background)
        loss, terms = photometric_loss(
            out.colors, out.alphas, target, matte, loss_weights
        )
        terms = {**terms, "residual": residual_energy(residuals, alive)}
        return loss + residual_weight * terms["residual"], (terms, out)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        noise = 0.0
        if code_noise > 0:
            key = jax.random.fold_in(jax.random.key(seed), state.step)
            noise = code_noise * jax.random.normal(key, batch.expr.shape)
            noise = noise * state.params.detail["code_std"]
        (loss, (terms, out)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state.alive, batch, noise
        )
        means = {"loss": loss, **terms}
        largest, dropped = jnp.max(out.num_isects), jnp.sum(out.num_dropped)
        invalid = jnp.sum(out.num_invalid)
        if axis_name is not None:
            grads, means = jax.lax.pmean((grads, means), axis_name)
            largest = jax.lax.pmax(largest, axis_name)
            dropped, invalid = jax.lax.psum((dropped, invalid), axis_name)
        grad_norm = optax.tree.norm(grads)
        is_finite = jnp.isfinite(grad_norm) & jnp.isfinite(means["loss"])
        is_finite &= ~state.halted
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        proposed = TrainState(
            state.step + 1, params, opt_state, state.alive, state.halted
        )
        state = jax.tree.map(
            lambda new, old: jnp.where(is_finite, new, old), proposed, state
        )._replace(halted=~is_finite)
        metrics = {
            **means,
            "num_alive": jnp.sum(state.alive),
            "num_isects": largest,
            "num_dropped": dropped,
            "num_invalid": invalid,
            "grad_norm": grad_norm,
            "is_finite": is_finite,
        }
        return state, metrics

    return step
