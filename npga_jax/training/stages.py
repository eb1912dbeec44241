"""What changes during a run: the size of its images, and the terms that count."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from npga_jax.avatar import (
    LossTerm,
    Method,
    deform_gaussians,
    head_viewmats,
    render_views,
    terms_at,
)
from npga_jax.core import Batch, InputError
from npga_jax.data import Capture, Footage, Views, load_batch, plan_step
from npga_jax.training.optim import make_optimizer
from npga_jax.training.settings import TrainConfig
from npga_jax.training.state import TrainState
from npga_jax.training.step import Frames, StepFn, downscale_batch, make_train_step

SMALLEST_SIDE = 16
"""Pixels of the images that a run with `halvings` begins with."""


class Stage(NamedTuple):
    """What a compiled step depends on that changes during a run."""

    downscale: int
    terms: tuple[str, ...]  # names of those that count


def stage_at(cfg: TrainConfig, method: Method, step: int, *, has_mattes: bool) -> Stage:
    """The stage of a step; counted from 0."""
    share = step / cfg.steps
    terms = terms_at(method, share, has_mattes=has_mattes)
    return Stage(
        downscale=2 ** sum(share < s for s in cfg.halvings),
        terms=tuple(term.name for term in terms),
    )


def check_halvings(cfg: TrainConfig, footage: Footage) -> None:
    """Images must show something at the size that a run begins with.

    Raises:
      InputError: they begin with a side of less than `SMALLEST_SIDE` pixels.
    """
    side = min(footage.width, footage.height)
    if cfg.halvings and side // 2 ** len(cfg.halvings) < SMALLEST_SIDE:
        most = max(0, (side // SMALLEST_SIDE).bit_length() - 1)
        raise InputError(
            f"--halvings {' '.join(map(str, cfg.halvings))}: images of "
            f"{footage.width}x{footage.height} pixels can be halved {most} times, not "
            f"{len(cfg.halvings)}, to keep {SMALLEST_SIDE} pixels a side. Give fewer, "
            "or a larger --capture.width."
        )


def stage_terms(method: Method, stage: Stage) -> tuple[LossTerm, ...]:
    """The terms of a stage."""
    return tuple(term for term in method.terms if term.name in stage.terms)


def stage_frames(footage: Footage, stage: Stage, max_isects: int) -> Frames:
    """The sizes that programs of a stage are compiled for."""
    return Frames(footage.width, footage.height, max_isects, stage.downscale)


def run_optimizer(cfg: TrainConfig, method: Method) -> optax.GradientTransformation:
    """The optimiser of the settings, for the networks of the method."""
    return make_optimizer(cfg.optim, cfg.steps, has_forward=method.forward.moves)


def make_run_step(
    cfg: TrainConfig,
    method: Method,
    footage: Footage,
    stage: Stage,
    *,
    max_isects: int,
    axis_name: str | None,
) -> StepFn:
    """The training step of a stage.

    Args:
      footage: a capture, or what stands for one.
    """
    return make_train_step(
        method,
        stage_terms(method, stage),
        stage_frames(footage, stage, max_isects),
        run_optimizer(cfg, method),
        seed=cfg.seed,
        axis_name=axis_name,
    )


def make_isects_fn(
    cfg: TrainConfig,
    method: Method,
    capture: Capture,
    train: tuple[Views, ...],
    *,
    downscale: int = 1,
) -> Callable[[TrainState], int]:
    """A function that counts the intersections of a state's cloud.

    It gives the largest number over a few training views, and is compiled once.
    """
    views = min(4, len(train[0].cameras))
    plans = [
        plan_step(step, seed=cfg.seed, train=train, views_per_step=views)
        for step in range(2)
    ]

    @jax.jit
    def count(params, alive, batch: Batch):
        batch = downscale_batch(batch, downscale)
        splats, _ = deform_gaussians(method, params, alive, batch.expr)
        _, out = render_views(
            method,
            params,
            splats,
            head_viewmats(batch.viewmats, batch.world_from_head),
            batch.Ks,
            width=capture.width // downscale,
            height=capture.height // downscale,
            max_isects=1,
            with_screen=False,
        )
        return jnp.max(out.num_isects)

    def largest(state: TrainState) -> int:
        batches = (load_batch(capture, *plan) for plan in plans)
        return max(int(count(state.params, state.alive, b)) for b in batches)

    return largest
