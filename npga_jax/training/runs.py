"""A trained run, opened for use: its avatar as a function of codes and cameras."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from npga_jax.avatar import (
    AvatarRenderer,
    make_deformation,
)
from npga_jax.core import CHECKPOINTS, AvatarParams, InputError, Splats, checkpoint
from npga_jax.data import Capture, Split, holdout_split, open_capture
from npga_jax.training import parallel
from npga_jax.training.build import state_template
from npga_jax.training.run_folder import read_config
from npga_jax.training.settings import TrainConfig
from npga_jax.training.step import TrainState


def make_renderer_fn(
    cfg: TrainConfig, capture: Capture
) -> Callable[[TrainState], AvatarRenderer]:
    """A function from states of a run in progress to their renderer.

    It is one renderer, compiled once, and shows the state that was asked for last.
    """
    renderer: AvatarRenderer | None = None

    def renderer_of(state: TrainState) -> AvatarRenderer:
        nonlocal renderer
        if renderer is None:
            renderer = AvatarRenderer(
                make_deformation(cfg, capture.expr_names),
                state.params,
                state.alive,
                capture.width,
                capture.height,
                num_expr=capture.expr_dim,
            )
        renderer.params, renderer.alive = state.params, state.alive
        return renderer

    return renderer_of


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run folder, opened."""

    folder: Path
    config: TrainConfig
    capture: Capture
    split: Split
    step: int
    params: AvatarParams
    alive: jax.Array
    seconds: dict[str, float]
    render_fn: AvatarRenderer

    def splats(self, expr: np.ndarray, world_from_head: np.ndarray) -> Splats:
        """The posed cloud in the world frame, NumPy arrays."""
        return self.render_fn.splats(expr, world_from_head)


def load_run(folder: Path, *, data_root: Path | None = None) -> Run:
    """Opens the newest checkpoint of a run.

    Args:
      data_root: where the capture is now, if it has moved since the training.

    Raises:
      InputError: if the folder is no run, has no checkpoint, or its capture is gone.
    """
    cfg = read_config(folder)
    step = checkpoint.latest_step(folder / CHECKPOINTS)
    if step is None:
        raise InputError(
            f"{folder} has no complete checkpoint yet; train on with "
            f"experiments/train.py --resume --output {folder}."
        )
    capture = open_capture(cfg.subject, data_root or cfg.data_root, cfg.capture)
    split = holdout_split(
        capture, cfg.capture.held_out_sequence, cfg.capture.held_out_camera
    )
    mesh = parallel.make_mesh(1)
    state, metadata = checkpoint.load_state(
        folder / CHECKPOINTS,
        step,
        state_template(cfg, capture.expr_dim),
        parallel.replicated(mesh),
    )
    return Run(
        folder=folder,
        config=cfg,
        capture=capture,
        split=split,
        step=step,
        params=state.params,
        alive=state.alive,
        seconds={"training": float(metadata.get("seconds", 0.0))},
        render_fn=make_renderer_fn(cfg, capture)(state),
    )
