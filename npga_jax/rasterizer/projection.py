"""Gaussians in 3D to ellipses on the screen (EWA splatting, first order).

Everything is kept as columns [N], not as small matrices: on every backend the compiler
then fuses the whole projection into a few vectorised passes. Sources: Zwicker et al.,
"EWA Splatting" (2002); vocabulary and conventions of gsplat.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp

ALPHA_THRESHOLD = 1.0 / 255.0
"""Contributions below one grey level are skipped, as in 3DGS."""

MAX_MAGNITUDE = 1e15
"""Larger input counts as invalid: its squares and cubes would overflow float32."""

MAX_SCREEN_SCALE = 1e8
"""Pixels; a larger splat would overflow float32 determinants and counts as invalid."""


class Projection(NamedTuple):
    """Screen-space ellipses of one camera; zero radii where culled."""

    means2d: jax.Array  # [N, 2] pixels; the centre of the first pixel is (0.5, 0.5)
    conics: jax.Array  # [N, 3] (a, b, c) of the inverse covariance, 1 / pixels^2
    depths: jax.Array  # [N] camera z
    radii: jax.Array  # [N, 2] half extents of the visible ellipse's box, pixels
    opacities: jax.Array  # [N] with the antialias compensation, if asked for
    invalid: jax.Array  # [N] bool, culled for being NaN, infinite or absurdly large


def is_usable(*columns: jax.Array) -> jax.Array:
    """Whether a row is free of NaN, infinite and absurdly large numbers."""
    ok = jnp.abs(columns[0]) < MAX_MAGNITUDE
    for column in columns[1:]:
        ok &= jnp.abs(column) < MAX_MAGNITUDE
    return ok


def project_gaussians(
    means: jax.Array,  # [N, 3] world
    quats: jax.Array,  # [N, 4] wxyz, any norm; the identity below 1e-6
    scales: jax.Array,  # [N, 3]
    opacities: jax.Array,  # [N]
    viewmat: jax.Array,  # [4, 4] world-to-camera, OpenCV
    K: jax.Array,  # [3, 3] pixels
    *,
    width: int,
    height: int,
    eps2d: float = 0.3,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    antialiased: bool = False,
) -> Projection:
    """Projects Gaussians; what cannot be seen gets zero radii and zero gradients.

    The visible ellipse is where opacity * exp(-d) reaches 1/255, so that a faint
    Gaussian covers fewer tiles than an opaque one.

    Args:
      eps2d: added to the diagonal of each 2D covariance, pixels squared, so that no
        splat is thinner than about one pixel.
      antialiased: scale opacities by the energy that `eps2d` adds (Mip-Splatting).

    Returns:
      Projection; `invalid` marks NaN, infinite and absurdly large input.
    """
    columns = [*means.T, *quats.T, *scales.T, opacities]
    usable = is_usable(*columns)
    columns = [jnp.where(usable, column, 0.0) for column in columns]
    mx, my, mz, qw, qx, qy, qz, s0, s1, s2, opacity = columns

    v = viewmat
    tx = v[0, 0] * mx + v[0, 1] * my + v[0, 2] * mz + v[0, 3]
    ty = v[1, 0] * mx + v[1, 1] * my + v[1, 2] * mz + v[1, 3]
    tz = v[2, 0] * mx + v[2, 1] * my + v[2, 2] * mz + v[2, 3]
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    in_range = (tz > near_plane) & (tz < far_plane)
    tz_safe = jnp.where(in_range, tz, 1.0)
    inv_z = 1.0 / tz_safe

    largest = jnp.maximum(jnp.abs(s0), jnp.maximum(jnp.abs(s1), jnp.abs(s2)))
    small_enough = largest * jnp.maximum(fx, fy) * inv_z < MAX_SCREEN_SCALE
    invalid = ~usable | (in_range & ~small_enough)
    ok = usable & in_range & small_enough
    s0, s1, s2 = (jnp.where(ok, s, 0.0) for s in (s0, s1, s2))
    tx, ty = jnp.where(ok, tx, 0.0), jnp.where(ok, ty, 0.0)

    # Beyond 1.3 times the view the first-order expansion blows up: clamp its centre.
    x_ratio, y_ratio = tx * inv_z, ty * inv_z
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    jx = jnp.clip(x_ratio, -cx / fx - margin_x, (width - cx) / fx + margin_x)
    jy = jnp.clip(y_ratio, -cy / fy - margin_y, (height - cy) / fy + margin_y)

    # Rows of J @ W, where J is the projection's Jacobian and W the camera rotation.
    gx, gy = fx * inv_z, fy * inv_z
    rows = (
        [gx * (v[0, i] - jx * v[2, i]) for i in range(3)],
        [gy * (v[1, i] - jy * v[2, i]) for i in range(3)],
    )

    norm2 = qw * qw + qx * qx + qy * qy + qz * qz
    k = 2.0 / jnp.where(norm2 > 1e-12, norm2, 1.0)
    rotation = (
        (1 - k * (qy * qy + qz * qz), k * (qx * qy - qw * qz), k * (qx * qz + qw * qy)),
        (k * (qx * qy + qw * qz), 1 - k * (qx * qx + qz * qz), k * (qy * qz - qw * qx)),
        (k * (qx * qz - qw * qy), k * (qy * qz + qw * qx), 1 - k * (qx * qx + qy * qy)),
    )
    # The splat's axes on the screen: columns of J @ W @ R @ S.
    axes = [
        tuple(sum(row[i] * rotation[i][j] for i in range(3)) * s for row in rows)
        for j, s in enumerate((s0, s1, s2))
    ]
    c00, c01, c11 = (
        sum(axis[i] * axis[j] for axis in axes) for i, j in ((0, 0), (0, 1), (1, 1))
    )
    # Cauchy-Binet: as a sum of squares the determinant does not cancel for needles.
    # The gradient takes the usual formula, which compiles to a fraction of the work.
    exact = sum(
        (a[0] * b[1] - a[1] * b[0]) ** 2 for a, b in itertools.combinations(axes, 2)
    )
    det_before = c00 * c11 - c01 * c01
    det_before += jax.lax.stop_gradient(exact - det_before)
    det = jnp.maximum(det_before + eps2d * (c00 + c11 + eps2d), 1e-12)
    c00, c11 = c00 + eps2d, c11 + eps2d
    inv_det = 1.0 / det
    if antialiased:
        opacity = opacity * jnp.sqrt(jnp.maximum(det_before * inv_det, 1e-10))

    u, w = fx * x_ratio + cx, fy * y_ratio + cy
    visible_opacity = jnp.where(ok, opacity, 0.0)
    extent2 = jax.lax.stop_gradient(
        2.0 * jnp.log(jnp.maximum(visible_opacity / ALPHA_THRESHOLD, 1e-12))
    )
    seen = ok & (extent2 > 0)
    radii = jax.lax.stop_gradient(
        jnp.sqrt(jnp.maximum(extent2, 0.0)[:, None] * jnp.stack([c00, c11], -1))
    )
    on_screen = (
        (u + radii[:, 0] > 0)
        & (u - radii[:, 0] < width)
        & (w + radii[:, 1] > 0)
        & (w - radii[:, 1] < height)
    )
    seen &= on_screen
    return Projection(
        means2d=jnp.stack([u, w], axis=-1),
        conics=jnp.stack([c11 * inv_det, -c01 * inv_det, c00 * inv_det], axis=-1),
        depths=tz,
        radii=jnp.where(seen[:, None], radii, 0.0),
        opacities=jnp.where(seen, visible_opacity, 0.0),
        invalid=invalid,
    )
