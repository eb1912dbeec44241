"""The obvious renderer: every Gaussian at every pixel. Slow; the twin for the tests."""

import jax
import jax.numpy as jnp

from npga_jax.rasterizer.compositing import MAX_ALPHA, TRANSMITTANCE_THRESHOLD, Blocking
from npga_jax.rasterizer.projection import ALPHA_THRESHOLD, Projection
from npga_jax.rasterizer.tiles import IsectCounts


def composite_dense(
    projection: Projection,
    colors: jax.Array,  # [N, F]
    *,
    width: int,
    height: int,
    max_isects: int,
    blocking: Blocking,
) -> tuple[jax.Array, jax.Array, IsectCounts]:
    """Same arguments and results as the tiled path, O(N * H * W) time.

    `max_isects` and `blocking` have no meaning here and are ignored.
    """
    del max_isects, blocking
    dtype = colors.dtype
    visible = projection.radii[:, 0] > 0
    order = jnp.argsort(jnp.where(visible, projection.depths, jnp.inf), stable=True)
    x, y = jnp.meshgrid(jnp.arange(width) + 0.5, jnp.arange(height) + 0.5)

    def blend(state, gaussian):
        image, transmittance, finished = state
        (u, v), (a, b, c), opacity, color, shown = gaussian
        dx, dy = x - u, y - v
        sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
        alpha = opacity * jnp.exp(-jnp.maximum(sigma, 0.0))
        shown &= alpha >= ALPHA_THRESHOLD
        alpha = jnp.where(shown, jnp.minimum(alpha, MAX_ALPHA), 0.0)
        # A pixel ends before the first Gaussian that would leave too little light.
        finished |= transmittance * (1.0 - alpha) <= TRANSMITTANCE_THRESHOLD
        alpha = jnp.where(finished, 0.0, alpha)
        image += (transmittance * alpha)[..., None] * color
        return (image, transmittance * (1.0 - alpha), finished), None

    start = (
        jnp.zeros((height, width, colors.shape[1]), dtype),
        jnp.ones((height, width), dtype),
        jnp.zeros((height, width), bool),
    )
    columns = (projection.means2d, projection.conics, projection.opacities, colors)
    gaussians = jax.tree.map(lambda column: column[order], (*columns, visible))
    image, transmittance, _ = jax.lax.scan(blend, start, gaussians)[0]
    return image, transmittance, IsectCounts(jnp.int32(0), jnp.int32(0))
