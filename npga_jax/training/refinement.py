"""Density control in a run: when, from which views, and on which state."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.avatar import (
    deform_gaussians,
    head_viewmats,
    make_deformation,
    render_views,
)
from npga_jax.core import AvatarParams, Batch
from npga_jax.data import Capture, Views, load_batch
from npga_jax.training.build import Stage, loss_weights, neighbour_graph
from npga_jax.training.density import (
    DensityOptions,
    DensityReport,
    ViewStats,
    control_density,
    empty_stats,
    view_stats,
)
from npga_jax.training.losses import composite_target, photometric_terms, weighted_sum
from npga_jax.training.settings import TrainConfig
from npga_jax.training.step import TrainState, downscale_batch


def event_steps(cfg: TrainConfig) -> tuple[int, ...]:
    """Steps after which the cloud is changed."""
    density = cfg.density
    if density.strategy == "none" or density.stop < density.start:
        return ()
    shares = np.linspace(density.start, density.stop, density.events)
    return tuple(dict.fromkeys(max(1, round(s * cfg.steps)) for s in shares))


def event_at(cfg: TrainConfig, step: int) -> int | None:
    """The number of the event that is due after so many steps, or None."""
    steps = event_steps(cfg)
    return steps.index(step) if step in steps else None


class Refiner:
    """Runs events; compiled once for a size of images and a capacity."""

    def __init__(
        self, cfg: TrainConfig, capture: Capture, stage: Stage, max_isects: int
    ):
        self.cfg, self.capture = cfg, capture
        density = cfg.density
        options = DensityOptions(
            strategy=density.strategy,
            growth=density.growth,
            peak_weight=density.peak_weight,
            error_weight=density.error_weight,
        )
        self._control = jax.jit(partial(control_density, options=options))
        factor = stage.downscale
        deformation = make_deformation(cfg, capture.expr_names)
        weights = loss_weights(cfg, capture, stage)._replace(
            lpips=0.0,
            parts=0.0,
            screen=0.0,
            residual=0.0,
            laplacian_features=0.0,
            laplacian_dynamics=0.0,
            scale=0.0,
            opacity=0.0,
        )

        def add_view(
            stats: ViewStats, params: AvatarParams, alive: jax.Array, batch: Batch
        ) -> ViewStats:
            batch = downscale_batch(batch, factor)
            viewmats = head_viewmats(batch.viewmats, batch.world_from_head)
            target, matte = composite_target(batch.rgb, batch.alpha, 1.0)
            splats, _ = deform_gaussians(
                params, alive, batch.expr, **deformation._asdict()
            )

            def render(means, colors):
                out = render_views(
                    splats._replace(means=means, colors=colors),
                    viewmats,
                    batch.Ks,
                    width=capture.width // factor,
                    height=capture.height // factor,
                    max_isects=max_isects,
                )
                return out.colors, out.alphas

            (colors, alphas), pull = jax.vjp(render, splats.means, splats.colors)
            by_pixel = jax.grad(
                lambda c, a: weighted_sum(
                    photometric_terms(c, a, target, matte), weights
                ),
                argnums=(0, 1),
            )(colors, alphas)
            gradient, _ = pull(by_pixel)
            # What a colour would change is the sum of the weights of its Gaussian: with
            # errors in the place of a gradient, its share in them.
            wrong = jnp.mean(jnp.abs(colors - target), axis=-1, keepdims=True)
            _, share = pull(
                (jnp.broadcast_to(wrong, colors.shape), jnp.zeros_like(alphas))
            )
            error = jnp.max(jnp.abs(share[:, 0]), axis=-1)
            return view_stats(stats, splats, gradient, error, viewmats[0], batch.Ks[0])

        self._add_view = jax.jit(add_view)

    def __call__(
        self, state: TrainState, train: tuple[Views, ...], event: int
    ) -> tuple[TrainState, DensityReport]:
        """Looks at some views and changes the cloud; which ones depends on the seed.

        Args:
          event: counts from 0.
        """
        cfg = self.cfg
        rng = np.random.default_rng((cfg.seed, 1, event))
        order = rng.permutation(len(train))
        stats = empty_stats(state.alive.shape[0])
        for i in range(cfg.density.views):
            timestep, cameras = train[order[i % len(train)]]
            camera = cameras[rng.integers(len(cameras))]
            batch = load_batch(self.capture, timestep, (camera,))
            stats = self._add_view(stats, state.params, state.alive, batch)
        adam, *rest = state.opt_state
        key = jax.random.fold_in(jax.random.key(cfg.seed), event)
        gaussians, (mu, nu), alive, report = self._control(
            state.params.gaussians,
            (adam.mu.gaussians, adam.nu.gaussians),
            state.alive,
            stats,
            key,
        )
        adam = adam._replace(
            mu=adam.mu._replace(gaussians=mu), nu=adam.nu._replace(gaussians=nu)
        )
        state = state._replace(
            params=state.params._replace(gaussians=gaussians),
            opt_state=(adam, *rest),
            alive=alive,
            graph=neighbour_graph(cfg, gaussians, alive),
        )
        return state, jax.tree.map(int, report)
