"""Real spherical harmonics to degree 3, in the order and sign of 3DGS."""

import jax
import jax.numpy as jnp

from npga_jax.core import clip_with_way_back

C0 = 0.28209479177387814
C1 = 0.4886025119029199
C2 = (
    1.0925484305920792,
    -1.0925484305920792,
    0.31539156525252005,
    -1.0925484305920792,
    0.5462742152960396,
)
C3 = (
    -0.5900435899266435,
    2.890611442640554,
    -0.4570457994644658,
    0.3731763325901154,
    -0.4570457994644658,
    1.445305721320277,
    -0.5900435899266435,
)


def num_sh_bases(degree: int) -> int:
    """Number of bases up to `degree`."""
    return (degree + 1) ** 2


def rgb_to_sh(rgb: jax.Array) -> jax.Array:
    """Degree-0 coefficient of a colour."""
    return (rgb - 0.5) / C0


def eval_sh(sh: jax.Array, directions: jax.Array) -> jax.Array:
    """Colours seen along directions.

    Args:
      sh: [N, K, 3] with K = 1, 4, 9 or 16.
      directions: [N, 3] unit vectors from the camera to the Gaussian.

    Returns:
      [N, 3], 0 or more. What is clamped at 0 gets the gradients that
      would brighten it: otherwise a Gaussian once black would stay so.

    Raises:
      ValueError: K is another number.
    """
    num_bases = sh.shape[-2]
    if num_bases not in (1, 4, 9, 16):
        raise ValueError(f"sh has {num_bases} bases; expected 1, 4, 9 or 16")
    basis = [jnp.full(directions.shape[:-1], C0)]
    x, y, z = jnp.moveaxis(directions, -1, 0)
    xx, yy, zz = x * x, y * y, z * z
    if num_bases >= 4:
        basis += [-C1 * y, C1 * z, -C1 * x]
    if num_bases >= 9:
        basis += [
            C2[0] * x * y,
            C2[1] * y * z,
            C2[2] * (2 * zz - xx - yy),
            C2[3] * x * z,
            C2[4] * (xx - yy),
        ]
    if num_bases >= 16:
        basis += [
            C3[0] * y * (3 * xx - yy),
            C3[1] * x * y * z,
            C3[2] * y * (4 * zz - xx - yy),
            C3[3] * z * (2 * zz - 3 * xx - 3 * yy),
            C3[4] * x * (4 * zz - xx - yy),
            C3[5] * z * (xx - yy),
            C3[6] * x * (xx - 3 * yy),
        ]
    rgb = sum(basis[k][..., None] * sh[..., k, :] for k in range(num_bases))
    return clip_with_way_back(rgb + 0.5, 0.0)
