"""The obvious renderer: every Gaussian at every pixel. Slow; the twin for the tests."""

import jax
import jax.numpy as jnp

from npga_jax.rasterizer.compositing import (
    MAX_ALPHA,
    TRANSMITTANCE_THRESHOLD,
    Blocking,
)
from npga_jax.rasterizer.projection import ALPHA_THRESHOLD, Projection
from npga_jax.rasterizer.tiles import TileLists


def composite_dense(
    projection: Projection,
    colors: jax.Array,  # [N, F]
    *,
    width: int,
    height: int,
    max_isects: int,
    blocking: Blocking,
) -> tuple[jax.Array, jax.Array, TileLists]:
    """Same arguments and results as the tiled path, O(N * H * W) time and memory.

    `max_isects` and `blocking` have no meaning here and are ignored.
    """
    del max_isects, blocking
    n = projection.depths.shape[0]
    visible = projection.radii[:, 0] > 0
    order = jnp.argsort(jnp.where(visible, projection.depths, jnp.inf), stable=True)
    means2d, conics, opacities, colors, visible = jax.tree.map(
        lambda x: x[order],
        (projection.means2d, projection.conics, projection.opacities, colors, visible),
    )
    x, y = jnp.meshgrid(jnp.arange(width) + 0.5, jnp.arange(height) + 0.5)
    dx = x[None] - means2d[:, 0, None, None]  # [N, H, W]
    dy = y[None] - means2d[:, 1, None, None]
    a, b, c = (conics[:, i, None, None] for i in range(3))
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = opacities[:, None, None] * jnp.exp(-jnp.maximum(sigma, 0.0))
    shown = (alpha >= ALPHA_THRESHOLD) & visible[:, None, None]
    alpha = jnp.where(shown, jnp.minimum(alpha, MAX_ALPHA), 0.0)
    # A pixel ends before the first Gaussian that would leave too little light.
    active = jnp.cumprod(1.0 - alpha, axis=0) > TRANSMITTANCE_THRESHOLD
    alpha = jnp.where(active, alpha, 0.0)
    after = jnp.cumprod(1.0 - alpha, axis=0)
    before = jnp.concatenate([jnp.ones_like(after[:1]), after[:-1]], axis=0)
    image = jnp.einsum("nhw,nf->hwf", before * alpha, colors)
    lists = TileLists(
        flatten_ids=jnp.arange(n),
        isect_offsets=jnp.zeros(1, jnp.int32),
        num_isects=jnp.int32(0),
        num_dropped=jnp.int32(0),
    )
    return image, after[-1], lists
