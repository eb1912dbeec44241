"""One optimiser step, as a pure function of state and batch."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from npga_jax.avatar import (
    LossTerm,
    Method,
    StepView,
    deform_gaussians,
    head_viewmats,
    render_views,
)
from npga_jax.core import AvatarParams, Batch, exact_products
from npga_jax.training.losses import composite_target, mean_psnr, weighted_terms
from npga_jax.training.state import TrainState

Metrics = Mapping[str, jax.Array]
StepFn = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def downscale_batch(batch: Batch, factor: int) -> Batch:
    """Images of 1 / factor the size, pixels averaged; what does not fill one is cut."""
    if factor == 1:
        return batch

    def shrink(images):
        views, height, width = images.shape[:3]
        images = images[:, : height // factor * factor, : width // factor * factor]
        images = images.astype(jnp.float32).reshape(
            views,
            height // factor,
            factor,
            width // factor,
            factor,
            *images.shape[3:],
        )
        return images.mean(axis=(2, 4))

    return batch._replace(
        rgb=shrink(batch.rgb),
        alpha=shrink(batch.alpha),
        parts=shrink(batch.parts),
        Ks=jnp.asarray(batch.Ks).at[:, :2].divide(factor),
    )


class Frames(NamedTuple):
    """What a program is compiled for: sizes, and what does not change in a stage."""

    width: int  # of the images in a batch, pixels
    height: int
    max_isects: int  # capacity of a view
    downscale: int = 1  # images of 1 / downscale the size are trained on
    background: float = 1.0


@exact_products
def view_step(
    method: Method,
    terms: tuple[LossTerm, ...],
    frames: Frames,
    params: AvatarParams,
    state: TrainState,
    batch: Batch,  # as it came
    keys: tuple[jax.Array, jax.Array],  # of the noise on codes, and of the terms
) -> StepView:
    """Renders a batch, and gathers what loss terms may look at."""
    batch = downscale_batch(batch, frames.downscale)
    detail_expr = batch.expr
    if method.code_noise > 0 and "code_std" in params.detail:
        noise = jax.random.normal(keys[0], batch.expr.shape)
        unit = jax.lax.stop_gradient(params.detail["code_std"])
        detail_expr += method.code_noise * noise * unit
    splats, residuals = deform_gaussians(
        method, params, state.alive, batch.expr, detail_expr=detail_expr
    )
    viewmats = head_viewmats(batch.viewmats, batch.world_from_head)
    shown, out = render_views(
        method,
        params,
        splats,
        viewmats,
        batch.Ks,
        width=frames.width // frames.downscale,
        height=frames.height // frames.downscale,
        max_isects=frames.max_isects,
        background=frames.background,
        with_screen=any(term.needs_screen for term in terms),
    )
    target, matte = composite_target(batch.rgb, batch.alpha, frames.background)
    return StepView(
        params=params,
        alive=state.alive,
        expr=batch.expr,
        splats=splats,
        residuals=residuals,
        out=out,
        shown=shown,
        target=target,
        matte=matte,
        parts=batch.parts / 255.0,
        viewmats=viewmats,
        Ks=batch.Ks,
        graph=state.graph,
        key=keys[1],
    )


def make_train_step(
    method: Method,
    terms: tuple[LossTerm, ...],
    frames: Frames,
    optimizer: optax.GradientTransformation,
    *,
    seed: int = 0,
    axis_name: str | None = None,
) -> StepFn:
    """Binds the choices of a run into `step(state, batch) -> (state, metrics)`.

    All views of a batch show one timestep, so the cloud is deformed once. A step whose
    gradient is not finite leaves the state as it was, says so in `is_finite`, and halts
    it: later steps are refused too, so that the state stays the one before the bad step
    however late the caller looks.

    Args:
      terms: those of the method that count (`avatar.terms_at`).
      seed: of the noises, which depend on nothing else but the step.
      axis_name: average gradient and metrics over this axis (`parallel`).

    Returns:
      The step. Its metrics: loss, its terms, psnr (dB, whole frame, on the background),
      num_alive, num_isects (largest of the views), num_dropped and num_invalid (sums),
      grad_norm, is_finite.
    """

    def loss_fn(params, state, batch, keys):
        view = view_step(method, terms, frames, params, state, batch, keys)
        loss, values = weighted_terms(terms, view)
        values["psnr"] = mean_psnr(view.shown, view.target)
        return loss, (values, view.out)

    @exact_products
    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        noise_key, terms_key, explore_key = jax.random.split(key, 3)
        (loss, (values, out)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state, batch, (noise_key, terms_key)
        )
        means = {"loss": loss, **values}
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
        params = cast(AvatarParams, optax.apply_updates(state.params, updates))
        if method.density.explore is not None:
            gaussians = method.density.explore(
                params.gaussians, state.alive, explore_key
            )
            params = params._replace(gaussians=gaussians)
        proposed = state._replace(
            step=state.step + 1, params=params, opt_state=opt_state
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
