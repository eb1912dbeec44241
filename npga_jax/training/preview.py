"""Pictures of a run in progress: truth beside render, training frame and test frame."""

from collections.abc import Callable, Sequence

import numpy as np

from npga_jax.avatar import AvatarRenderer
from npga_jax.data import Capture, Split, Views, load_batch
from npga_jax.training.settings import TrainConfig
from npga_jax.training.state import TrainState


def most_expressive(capture: Capture, views: Sequence[Views]) -> Views:
    """Of some timesteps, the one whose driving code is largest."""
    return max(
        views, key=lambda v: float(np.sum(capture.driving(v.timestep).expr ** 2))
    )


def make_preview_fn(
    cfg: TrainConfig,
    capture: Capture,
    split: Split,
    renderer_fn: Callable[[TrainState], AvatarRenderer],
) -> Callable[[TrainState], np.ndarray]:
    """Chooses the most expressive training frame and a held-out one, from the front.

    Args:
      renderer_fn: see `runs.make_renderer_fn`.

    Returns:
      A function from a state to a picture [H, 4 W, 3] uint8: truth and render of
      each of the two frames.
    """
    chosen = [most_expressive(capture, split.train)]
    if split.self_reenactment:
        chosen.append(most_expressive(capture, split.self_reenactment))
    front = cfg.capture.held_out_camera
    batches = [load_batch(capture, v.timestep, (front,)) for v in chosen]

    def preview(state: TrainState) -> np.ndarray:
        renderer = renderer_fn(state)
        panels = []
        for batch in batches:
            alpha = batch.alpha[0, ..., None] / 255.0
            truth = batch.rgb[0] * alpha + 255.0 * (1.0 - alpha)
            image = renderer(
                batch.expr, batch.world_from_head, batch.viewmats, batch.Ks
            )[0]
            panels += [truth, 255.0 * image]
        return np.concatenate(panels, axis=1).round().astype(np.uint8)

    return preview
