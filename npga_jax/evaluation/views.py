"""The two images that an evaluation compares: the rendering and the ground truth."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.core import InputError
from npga_jax.data import Capture, Timestep, Views

RenderFn = Callable[..., np.ndarray]
"""(expr [E], world_from_head [4, 4], viewmats [C, 4, 4], Ks [C, 3, 3]) to images
[C, H, W, 3] float32 on white, in the capture's size."""


def render_cameras(render_fn: RenderFn, capture: Capture, views: Views) -> np.ndarray:
    """Renders one timestep for its cameras, clipped to [0, 1].

    Returns:
      [C, H, W, 3] float32.

    Raises:
      InputError: a rendering is not finite.
    """
    timestep, camera_ids = views
    driving = capture.driving(timestep)
    cameras = [capture.camera(timestep, c) for c in camera_ids]
    images = np.asarray(
        render_fn(
            driving.expr,
            driving.world_from_head,
            np.stack([c.world2cam for c in cameras]),
            np.stack([c.K for c in cameras]),
        )
    )
    expected = (len(cameras), capture.height, capture.width, 3)
    if images.shape != expected:
        raise ValueError(f"render_fn returned {images.shape}; expected {expected}.")
    if not np.isfinite(images).all():
        raise InputError(
            f"the rendering of {timestep.sequence} frame {timestep.frame_id} is not "
            "finite: the checkpoint is damaged or its training diverged."
        )
    return np.clip(images, 0.0, 1.0)


def ground_truth(capture: Capture, timestep: Timestep, camera_id: str) -> np.ndarray:
    """The photograph on white, [H, W, 3] float32 in [0, 1]."""
    rgb = capture.rgb(timestep, camera_id)
    alpha = capture.alpha(timestep, camera_id)
    return np.asarray(composite_on_white(rgb, alpha))


@jax.jit
def composite_on_white(rgb: jax.Array, alpha: jax.Array | None) -> jax.Array:
    """Ground truth on white: `rgb * alpha + (1 - alpha)`, float32 [H, W, 3].

    Args:
      rgb: [H, W, 3] uint8.
      alpha: [H, W] uint8; None leaves the camera's background in.
    """
    image = jnp.asarray(rgb, jnp.float32) / 255.0
    if alpha is None:
        return image
    matte = jnp.asarray(alpha, jnp.float32)[..., None] / 255.0
    return image * matte + (1.0 - matte)
