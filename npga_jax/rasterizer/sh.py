"""Real spherical harmonics to degree 3, in the order and sign of 3DGS."""

import jax
import jax.numpy as jnp

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


@jax.custom_vjp
def clamp_at_black(colors: jax.Array) -> jax.Array:
    """The larger of a colour and 0, with a gradient that leads back out of black.

    What is below 0 gets the gradient of what it is clamped to where a step against it
    brightens (where it is negative), and none where that would darken further: a plain
    maximum has none at all there, and a Gaussian once black would stay so for good.
    """
    return jnp.maximum(colors, 0.0)


def _clamp_fwd(colors):
    return clamp_at_black(colors), colors > 0


def _clamp_bwd(is_lit, cotangent):
    return (jnp.where(is_lit | (cotangent < 0), cotangent, 0.0),)


clamp_at_black.defvjp(_clamp_fwd, _clamp_bwd)


def eval_sh(sh: jax.Array, directions: jax.Array) -> jax.Array:
    """Colours seen along directions.

    Args:
      sh: [N, K, 3] with K = 1, 4, 9 or 16.
      directions: [N, 3] unit vectors from the camera to the Gaussian.

    Returns:
      [N, 3], clamped at 0 from below (see `clamp_at_black`).

    Raises:
      ValueError: K is another number.
    """
    num_bases = sh.shape[-2]
    if num_bases not in (1, 4, 9, 16):
        raise ValueError(f"sh has {num_bases} bases; expected 1, 4, 9 or 16")
    basis = [jnp.full(directions.shape[:-1], C0)]
    x, y, z = jnp.moveaxis(directions, -1, 0)
    if num_bases >= 4:
        basis += [-C1 * y, C1 * z, -C1 * x]
    if num_bases >= 9:
        xx, yy, zz = x * x, y * y, z * z
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
    return clamp_at_black(rgb + 0.5)
