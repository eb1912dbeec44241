"""What is not a pair of images in [0, 1] is refused by name, not measured."""

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from npga_jax.core import Array

LARGEST = 4.0
"""Renderings may overshoot 1, but not to this: such images are in 0..255."""


def check_images(
    pred: Array,  # [..., H, W, C]
    target: Array,  # [..., H, W, C]
    mask: Array | None = None,  # [..., H, W]
) -> None:
    """Checks kinds and shapes, and, of arrays whose numbers are known, the range.

    Raises:
      ValueError: an image is not of floating point or looks like 0..255, the images
        differ in size, or the mask has another shape than [..., H, W].
    """
    for name, image in (("pred", pred), ("target", target)):
        check_image(name, image)
    shape, other = np.shape(pred), np.shape(target)
    if shape[-3:] != other[-3:]:
        raise ValueError(f"pred is {shape} and target {other}; expected the same size.")
    if mask is not None:
        check_mask(mask, shape)


def check_image(name: str, image: Array) -> None:
    """`check_images` for one of them."""
    dtype = getattr(image, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        kind = type(image).__name__ if dtype is None else dtype
        raise ValueError(
            f"{name} is of {kind}; expected an image of floating point in [0, 1]: "
            "divide 0..255 by 255."
        )
    if np.ndim(image) < 3:
        raise ValueError(f"{name} is {np.shape(image)}; expected [..., H, W, C].")
    if isinstance(image, Tracer) or not np.size(image):
        return
    # NaN may lie outside a mask, and infinity shows in the result.
    # NumPy: within a trace, jnp would make a tracer of it.
    values = np.asarray(image, np.float32)
    largest = float(np.abs(values, where=np.isfinite(values), out=0 * values).max())
    if largest > LARGEST:
        raise ValueError(
            f"{name} has values up to {largest:g}; expected an image in [0, 1]: "
            "divide 0..255 by 255."
        )


def check_mask(mask: Array, image_shape: tuple[int, ...]) -> None:
    """Checks the shape of a mask against that of its image, [..., H, W, C]."""
    if np.shape(mask)[-2:] != image_shape[-3:-1]:
        raise ValueError(
            f"mask is {np.shape(mask)} and the image {image_shape}; expected "
            "[..., H, W], without an axis for channels."
        )
