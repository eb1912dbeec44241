"""A trained run, opened for use: its avatar as a function of codes and cameras."""

import dataclasses
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax import checkpoint, parallel
from npga_jax.avatar import (
    deform_gaussians,
    head_viewmats,
    render_views,
    splats_to_world,
)
from npga_jax.build import (
    Deformation,
    make_deformation,
    padded_capacity,
    state_template,
)
from npga_jax.config import TrainConfig
from npga_jax.data import open_capture
from npga_jax.data.capture import Capture
from npga_jax.data.splits import Split, holdout_split
from npga_jax.errors import InputError
from npga_jax.run_folder import CHECKPOINTS, read_config
from npga_jax.screen import refine_image
from npga_jax.training import TrainState
from npga_jax.types import AvatarParams, Splats


class AvatarRenderer:
    """Renders an avatar; grows its intersection capacity when that is too small."""

    def __init__(
        self,
        deformation: Deformation,
        params: AvatarParams,
        alive: jax.Array,
        width: int,
        height: int,
        *,
        num_expr: int,
    ):
        """Binds an avatar.

        Args:
          deformation: its F and G, the ones that it was trained with.
          width: of images, unless a call says otherwise; likewise `height`.
          num_expr: length of the codes that it was trained on.
        """
        self.params, self.alive = params, alive
        self.width, self.height = width, height
        self.num_expr = num_expr
        self._deform = partial(deform_gaussians, **deformation._asdict())
        self._capacity = padded_capacity(0)
        self._compiled = lru_cache(maxsize=8)(self._compile)

    def _compile(self, width: int, height: int, capacity: int):
        @jax.jit
        def render(params, alive, expr, world_from_head, viewmats, Ks):
            splats, _ = self._deform(params, alive, expr)
            has_screen = bool(params.screen)
            out = render_views(
                splats,
                head_viewmats(viewmats, world_from_head),
                Ks,
                width=width,
                height=height,
                max_isects=capacity,
                features=params.gaussians.features if has_screen else None,
            )
            images = refine_image(params.screen, out) if has_screen else out.colors
            return images, jnp.max(out.num_isects)

        return render

    def _check_expr(self, expr: np.ndarray) -> None:
        if expr.shape != (self.num_expr,):
            raise InputError(
                f"the expression code has shape {expr.shape}; this avatar was trained "
                f"on codes of length {self.num_expr}. Drive it with codes of the same "
                "model."
            )

    def __call__(
        self,
        expr: np.ndarray,  # [E]
        world_from_head: np.ndarray,  # [4, 4]
        viewmats: np.ndarray,  # [C, 4, 4]
        Ks: np.ndarray,  # [C, 3, 3]
        width: int | None = None,
        height: int | None = None,
    ) -> np.ndarray:
        """Images [C, H, W, 3] float32 in [0, 1], on white."""
        self._check_expr(expr)
        size = (width or self.width, height or self.height)
        while True:
            colors, wanted = self._compiled(*size, self._capacity)(
                self.params, self.alive, expr, world_from_head, viewmats, Ks
            )
            if int(wanted) <= self._capacity:
                return np.clip(np.asarray(colors), 0.0, 1.0)
            self._capacity = padded_capacity(int(wanted))

    def splats(self, expr: np.ndarray, world_from_head: np.ndarray) -> Splats:
        """The posed cloud in the world frame, NumPy arrays."""
        self._check_expr(expr)
        splats, _ = jax.jit(self._deform)(self.params, self.alive, expr)
        splats = splats_to_world(splats, jnp.asarray(world_from_head))
        return jax.tree.map(np.asarray, splats)


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
