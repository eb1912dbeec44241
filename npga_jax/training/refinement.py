"""Density control in a run: when, from which views, and on which state."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.avatar import Method
from npga_jax.core import Batch, InputError, exact_products
from npga_jax.data import Capture, Views, load_batch
from npga_jax.training.density import (
    DensityReport,
    ViewStats,
    empty_stats,
    view_stats,
)
from npga_jax.training.losses import weighted_terms
from npga_jax.training.settings import TrainConfig
from npga_jax.training.stages import Stage, stage_frames, stage_terms
from npga_jax.training.state import TrainState, averaged_after
from npga_jax.training.step import view_step


def event_steps(cfg: TrainConfig, method: Method) -> tuple[int, ...]:
    """Steps after which the cloud is changed."""
    if method.density.change is None:
        return ()
    steps = (max(1, round(share * cfg.steps)) for share in method.density.events)
    return tuple(dict.fromkeys(steps))


def event_at(cfg: TrainConfig, method: Method, step: int) -> int | None:
    """The number of the event that is due after so many steps, or None."""
    steps = event_steps(cfg, method)
    return steps.index(step) if step in steps else None


def check_averaging(cfg: TrainConfig, method: Method) -> None:
    """Weights are averaged slot by slot: no event may give a slot to another Gaussian.

    Raises:
      InputError: an event comes after the first step whose weights are averaged.
    """
    last = max(event_steps(cfg, method), default=0)
    if last > averaged_after(cfg):
        raise InputError(
            f"--average-from {cfg.average_from}: weights cannot be averaged while "
            f"Gaussians are replaced, and the last event of density control comes "
            f"after step {last} of {cfg.steps}; expected {last / cfg.steps:g} or more. "
            "Average later, or end density control earlier (--density.stop, or the "
            "method's own events)."
        )


class Survey(NamedTuple):
    """What the views of an event say."""

    stats: ViewStats
    num_isects: int  # the most that a view wanted
    num_dropped: int  # that found no room, over all views


class Refiner:
    """Runs events; compiled once for a size of images and a capacity."""

    def __init__(
        self,
        cfg: TrainConfig,
        method: Method,
        capture: Capture,
        stage: Stage,
        max_isects: int,
    ):
        """Binds a run.

        Args:
          max_isects: capacity of a view.
        """
        self.cfg, self.method, self.capture = cfg, method, capture
        change = method.density.change
        if change is None:
            raise ValueError("the method has no density control")
        self._control = jax.jit(change)
        terms = tuple(t for t in stage_terms(method, stage) if t.guides_density)
        frames = stage_frames(capture, stage, max_isects)
        quiet = method.replace(code_noise=0.0)
        keys = (jax.random.key(0), jax.random.key(0))

        @exact_products
        def add_view(
            stats: ViewStats, state: TrainState, batch: Batch
        ) -> tuple[ViewStats, jax.Array, jax.Array]:
            view = view_step(quiet, terms, frames, state.params, state, batch, keys)

            def render(means, colors):
                out = method.rasterize_fn(
                    *view.splats._replace(means=means, colors=colors),
                    view.viewmats,
                    view.Ks,
                    width=view.target.shape[2],
                    height=view.target.shape[1],
                    max_isects=max_isects,
                    backgrounds=jnp.full((view.Ks.shape[0], 3), frames.background),
                )
                return (out.colors, out.alphas), out

            (colors, alphas), pull, out = jax.vjp(
                render, view.splats.means, view.splats.colors, has_aux=True
            )
            view = view._replace(out=out)

            def loss_of(colors, alphas):
                seen = view.out._replace(colors=colors, alphas=alphas)
                return weighted_terms(terms, view._replace(out=seen, shown=colors))[0]

            gradient, _ = pull(jax.grad(loss_of, argnums=(0, 1))(colors, alphas))
            # What a colour would change is the sum of the weights of its Gaussian: with
            # errors in the place of a gradient, its share in them. They ask for more
            # light, which colours that were clipped at black let through.
            wrong = jnp.mean(jnp.abs(colors - view.target), axis=-1, keepdims=True)
            _, share = pull(
                (-jnp.broadcast_to(wrong, colors.shape), jnp.zeros_like(alphas))
            )
            error = jnp.max(jnp.abs(share[:, 0]), axis=-1)
            stats = view_stats(
                stats, view.splats, gradient, error, view.viewmats[0], view.Ks[0]
            )
            return stats, jnp.max(view.out.num_isects), jnp.sum(view.out.num_dropped)

        self._add_view = jax.jit(add_view)

    def look(self, state: TrainState, train: tuple[Views, ...], event: int) -> Survey:
        """Renders and differentiates some views; which ones depends on the seed.

        Args:
          event: counts from 0.
        """
        rng = np.random.default_rng((self.cfg.seed, 1, event))
        order = rng.permutation(len(train))
        # Placed as the state is: else the first view's program is compiled apart.
        stats = empty_stats(state.alive.shape[0])
        stats = jax.device_put(stats, state.alive.sharding)
        counts = []
        for i in range(self.method.density.views):
            timestep, cameras = train[order[i % len(train)]]
            camera = cameras[rng.integers(len(cameras))]
            batch = load_batch(self.capture, timestep, (camera,))
            stats, *count = self._add_view(stats, state, batch)
            counts.append(count)
        wanted, dropped = np.array(jax.device_get(counts)).T
        return Survey(stats, int(wanted.max()), int(dropped.sum()))

    def change(
        self, state: TrainState, stats: ViewStats, event: int
    ) -> tuple[TrainState, DensityReport]:
        """Changes the cloud, and the optimiser's moments with it.

        The neighbours are then those of the cloud before.
        """
        adam, *rest = state.opt_state
        key = jax.random.fold_in(jax.random.key(self.cfg.seed), event)
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
        )
        return state, jax.tree.map(int, report)
