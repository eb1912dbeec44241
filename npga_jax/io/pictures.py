"""Writes pictures, whole or not at all."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np

from npga_jax.core import atomic_write


def write_png(path: Path, image: np.ndarray) -> None:
    """Writes a .png.

    Args:
      path: where to; folders are made.
      image: [H, W, 3] uint8.

    Raises:
      InputError: the file cannot be written.
      ValueError: the image is of another shape or kind.
    """
    image = np.asarray(image)
    is_rgb = image.ndim == 3 and image.shape[2] == 3 and image.size > 0
    if not is_rgb or image.dtype != np.uint8:
        raise ValueError(
            f"{path}: an image is {image.shape} {image.dtype}; expected [H, W, 3] "
            "uint8."
        )
    with atomic_write(path) as file:
        iio.imwrite(file, image, extension=".png", plugin="pillow")
