"""What training minimises."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from npga_jax.metrics import psnr, ssim_map


class LossWeights(NamedTuple):
    """Weights of the terms of `photometric_loss`."""

    l1: float = 0.8
    ssim: float = 0.2
    alpha: float = 0.1


def composite_target(
    rgb: jax.Array,  # [B, H, W, 3] uint8
    alpha: jax.Array,  # [B, H, W] uint8
    background: jax.Array | float,
) -> tuple[jax.Array, jax.Array]:
    """The person on the given background: image [B, H, W, 3] and matte, in [0, 1]."""
    matte = alpha.astype(jnp.float32) / 255.0
    image = rgb.astype(jnp.float32) / 255.0
    return image * matte[..., None] + (1.0 - matte[..., None]) * background, matte


def photometric_loss(
    colors: jax.Array,  # [B, H, W, 3]
    alphas: jax.Array,  # [B, H, W]
    target: jax.Array,  # [B, H, W, 3]
    matte: jax.Array,  # [B, H, W]
    weights: LossWeights,
) -> tuple[jax.Array, Mapping[str, jax.Array]]:
    """l1 |I - I*| + ssim (1 - SSIM) + alpha |A - A*|, each a mean over pixels.

    Returns:
      The weighted sum, and the terms by name (unweighted) beside "psnr", which is a
      mean over views.
    """
    terms = {
        "l1": jnp.mean(jnp.abs(colors - target)),
        "ssim": 1.0 - jnp.mean(ssim_map(colors, target)),
        "alpha": jnp.mean(jnp.abs(alphas - matte)),
    }
    total = sum(weight * terms[name] for name, weight in weights._asdict().items())
    # A mean over views, so that it does not depend on how they share devices.
    terms["psnr"] = jnp.mean(psnr(jnp.clip(colors, 0, 1), target))
    return total, terms
