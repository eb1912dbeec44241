"""The training state and one optimiser step, as pure functions."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from npga_jax.avatar import (
    DetailFn,
    ScreenFn,
    coarse_identity,
    deform_gaussians,
    dynamics,
    head_viewmats,
    render_views,
    residual_energy,
)
from npga_jax.core import AvatarParams, Batch, CoarseFn, RasterizeFn
from npga_jax.metrics import LpipsFn
from npga_jax.rasterizer import rasterization
from npga_jax.training.density import explore
from npga_jax.training.laplacian import Graph, empty_graph, laplacian_energy
from npga_jax.training.losses import (
    LossWeights,
    composite_target,
    crop_around,
    mean_psnr,
    photometric_terms,
    scale_excess,
    weighted_sum,
)

Metrics = Mapping[str, jax.Array]


class TrainState(NamedTuple):
    """All that a run needs to go on: it is what a checkpoint holds."""

    step: jax.Array  # [] int32, steps taken
    params: AvatarParams
    opt_state: optax.OptState
    alive: jax.Array  # [N] bool, slots in use
    graph: Graph  # neighbours, as of the last change of the cloud
    halted: jax.Array  # [] bool, the last step was refused: so are all that follow
    average: AvatarParams  # of the weights, over the last steps; zeros before those


class Perceptual(NamedTuple):
    """The perceptual loss, and the part of the image that it sees."""

    lpips_fn: LpipsFn
    crop: int  # pixels


LAPLACIAN_ROWS = 4096
"""Gaussians whose neighbourhoods a step looks at."""


def init_train_state(
    params: AvatarParams,
    alive: jax.Array,
    optimizer: optax.GradientTransformation,
    graph: Graph | None = None,
) -> TrainState:
    """State before the first step; without a graph, one that has no neighbours."""
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        alive=alive,
        graph=empty_graph(alive.shape[0]) if graph is None else graph,
        halted=jnp.zeros((), bool),
        average=jax.tree.map(jnp.zeros_like, params),
    )
    # A weak type would make the second step compile anew.
    return jax.tree.map(lambda x: jnp.asarray(x, x.dtype), state)


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


def project_origin(viewmats: jax.Array, Ks: jax.Array) -> jax.Array:
    """Where each camera sees the origin: pixels [C, 2]."""
    seen = jnp.einsum("cij,cj->ci", Ks, viewmats[:, :3, 3])
    return seen[:, :2] / jnp.maximum(seen[:, 2:], 1e-6)


def average_in(state: TrainState, count: jax.Array) -> TrainState:
    """Takes the weights into their average, as the `count`-th; [] float, from 1.

    The cloud may not change its slots between the first and the last.
    """
    mean = jax.tree.map(lambda m, x: m + (x - m) / count, state.average, state.params)
    return state._replace(average=mean)


def make_train_step(
    *,
    optimizer: optax.GradientTransformation,
    width: int,
    height: int,
    max_isects: int,
    detail_fn: DetailFn,
    coarse_fn: CoarseFn = coarse_identity,
    rasterize_fn: RasterizeFn = rasterization,
    screen_fn: ScreenFn | None = None,
    loss_weights: LossWeights = LossWeights(),  # noqa: B008 - a constant
    perceptual: Perceptual | None = None,
    code_noise: float = 0.0,
    explore_rate: float = 0.0,
    downscale: int = 1,
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
      width: of the images in a batch, pixels; likewise `height`.
      screen_fn: refines the rendered image, which stays supervised too; needed where
        `loss_weights.screen` is not zero.
      perceptual: needed where `loss_weights.lpips` is not zero.
      code_noise: standard deviation of the noise on the codes that G reads, in G's own
        units of them. It acts on G as ridge regression and keeps it from reading the
        trackers' noise; F, which knows what codes mean, gets them as they are.
      explore_rate: of `density.explore`; zero for none.
      downscale: train on images of 1 / downscale the size.
      seed: of the noises, which depend on nothing else but the step.
      axis_name: average gradient and metrics over this axis (`parallel`).

    Returns:
      The step. Its metrics: loss, its terms, psnr (dB, whole frame, on the background),
      num_alive, num_isects (largest of the views), num_dropped and num_invalid (sums),
      grad_norm, is_finite.
    """
    width, height = width // downscale, height // downscale

    def loss_fn(params: AvatarParams, state: TrainState, batch: Batch, keys):
        alive = state.alive
        noise = 0.0
        if code_noise > 0:
            noise = code_noise * jax.random.normal(keys[0], batch.expr.shape)
            noise = noise * params.detail["code_std"]
        splats, residuals = deform_gaussians(
            params,
            alive,
            batch.expr,
            detail_fn=detail_fn,
            coarse_fn=coarse_fn,
            detail_expr=batch.expr + noise,
        )
        viewmats = head_viewmats(batch.viewmats, batch.world_from_head)
        out = render_views(
            splats,
            viewmats,
            batch.Ks,
            width=width,
            height=height,
            max_isects=max_isects,
            features=params.gaussians.features if loss_weights.screen else None,
            background=background,
            rasterize_fn=rasterize_fn,
        )
        target, matte = composite_target(batch.rgb, batch.alpha, background)
        parts = batch.parts / 255.0 if loss_weights.parts else None
        terms = photometric_terms(out.colors, out.alphas, target, matte, parts)
        shown = out.colors
        if loss_weights.screen:
            shown = screen_fn(params.screen, out)
            refined = photometric_terms(shown, out.alphas, target, matte)
            terms["screen"] = (
                loss_weights.l1 * refined["l1"] + loss_weights.ssim * refined["ssim"]
            )
        if loss_weights.lpips:
            size = min(perceptual.crop, width, height)
            views = viewmats.shape[0]
            shift = jax.random.uniform(keys[1], (views, 2), minval=-0.5, maxval=0.5)
            centres = project_origin(viewmats, batch.Ks) + size * shift
            terms["lpips"] = jnp.mean(
                perceptual.lpips_fn(
                    crop_around(shown, centres, size),
                    crop_around(target, centres, size),
                )
            )
        if loss_weights.residual:
            terms["residual"] = residual_energy(residuals, alive)
        if loss_weights.scale:
            terms["scale"] = scale_excess(splats.scales, alive)
        if loss_weights.opacity:
            total = jnp.maximum(jnp.sum(alive), 1)
            terms["opacity"] = jnp.sum(splats.opacities) / total
        rows = min(LAPLACIAN_ROWS, alive.shape[0])
        first = jax.random.randint(keys[2], (), 0, alive.shape[0] - rows + 1)
        if loss_weights.laplacian_features:
            terms["laplacian_features"] = laplacian_energy(
                params.gaussians.features, state.graph, first, rows=rows
            )
        if loss_weights.laplacian_dynamics:
            moved = splats.means - params.gaussians.means
            terms["laplacian_dynamics"] = laplacian_energy(
                dynamics(moved, residuals), state.graph, first, rows=rows
            )
        loss = weighted_sum(terms, loss_weights)
        return loss, (terms | {"psnr": mean_psnr(shown, target)}, out)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        batch = downscale_batch(batch, downscale)
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        keys = jax.random.split(key, 4)
        (loss, (terms, out)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state, batch, keys
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
        if explore_rate > 0:
            wandered = explore(
                params.gaussians, state.alive, keys[3], rate=explore_rate
            )
            params = params._replace(gaussians=wandered)
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
