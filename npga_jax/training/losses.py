"""What training minimises."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from npga_jax.metrics import psnr, ssim_map


class LossWeights(NamedTuple):
    """Weights of all that training minimises; a term of weight zero is not computed."""

    l1: float = 0.8
    ssim: float = 0.2
    alpha: float = 0.1
    parts: float = 0.0
    """|I - I*| of eyes and mouth once more, as a mean over all pixels."""
    screen: float = 0.0
    """l1 and ssim, so weighted, of the image that the screen-space network makes."""
    lpips: float = 0.0
    """On a crop around the face."""
    residual: float = 0.01
    """Squared size of G's residuals, in their own output scales."""
    laplacian_features: float = 0.0
    laplacian_dynamics: float = 0.0
    """Of what F and G add, in their own output scales."""
    scale: float = 0.0
    """Mean excess of scales over `LARGE_SCALE`, in units of it."""
    opacity: float = 0.0
    """Mean opacity."""


LARGE_SCALE = 8e-3
"""Metres; skin needs no larger Gaussians."""


def composite_target(
    rgb: jax.Array,  # [B, H, W, 3] uint8
    alpha: jax.Array,  # [B, H, W] uint8
    background: jax.Array | float,
) -> tuple[jax.Array, jax.Array]:
    """The person on the given background: image [B, H, W, 3] and matte, in [0, 1]."""
    matte = alpha.astype(jnp.float32) / 255.0
    image = rgb.astype(jnp.float32) / 255.0
    return image * matte[..., None] + (1.0 - matte[..., None]) * background, matte


def photometric_terms(
    colors: jax.Array,  # [B, H, W, 3]
    alphas: jax.Array,  # [B, H, W]
    target: jax.Array,  # [B, H, W, 3]
    matte: jax.Array,  # [B, H, W]
    parts: jax.Array | None = None,  # [B, H, W] in [0, 1]
) -> dict[str, jax.Array]:
    """|I - I*|, 1 - SSIM and |A - A*|, each a mean over pixels.

    Returns:
      {"l1", "ssim", "alpha"}, and with `parts` "parts": |I - I*| there.
    """
    difference = jnp.abs(colors - target)
    terms = {
        "l1": jnp.mean(difference),
        "ssim": 1.0 - jnp.mean(ssim_map(colors, target)),
        "alpha": jnp.mean(jnp.abs(alphas - matte)),
    }
    if parts is not None:
        terms["parts"] = jnp.mean(parts[..., None] * difference)
    return terms


def mean_psnr(colors: jax.Array, target: jax.Array) -> jax.Array:
    """dB; a mean over views, so that it does not depend on how they share devices."""
    return jnp.mean(psnr(jnp.clip(colors, 0, 1), target))


def crop_around(
    images: jax.Array,  # [B, H, W, 3]
    centres: jax.Array,  # [B, 2] pixels, x and y
    size: int,
) -> jax.Array:
    """Squares [B, size, size, 3] around the centres, moved inside the image."""
    height, width = images.shape[1:3]
    corner = jnp.round(centres - size / 2).astype(jnp.int32)
    left = jnp.clip(corner[:, 0], 0, width - size)
    top = jnp.clip(corner[:, 1], 0, height - size)

    def crop(image, x, y):
        return jax.lax.dynamic_slice(image, (y, x, 0), (size, size, 3))

    return jax.vmap(crop)(images, left, top)


def scale_excess(scales: jax.Array, alive: jax.Array) -> jax.Array:
    """How far scales [N, 3] of living Gaussians pass `LARGE_SCALE`, in units of it."""
    excess = jnp.sum(jax.nn.relu(scales / LARGE_SCALE - 1.0), axis=-1)
    return jnp.sum(jnp.where(alive, excess, 0.0)) / jnp.maximum(jnp.sum(alive), 1)


def weighted_sum(terms: Mapping[str, jax.Array], weights: LossWeights) -> jax.Array:
    """The loss; terms may lack those of weight zero."""
    return sum(
        weight * terms[name] for name, weight in weights._asdict().items() if weight
    )
