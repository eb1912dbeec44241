"""Guarded elementary functions: finite values and gradients at the edges."""

from functools import partial

import jax
import jax.numpy as jnp


def safe_normalize(x: jax.Array, eps: float = 1e-12) -> jax.Array:
    """Scales the last axis to unit length; zero stays zero, with a finite gradient."""
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + eps)


def safe_norm(x: jax.Array) -> jax.Array:
    """Euclidean length of the last axis; the gradient at zero is zero, not NaN."""
    squared = jnp.sum(x * x, axis=-1)
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)


def quat_to_rotmat(quats: jax.Array) -> jax.Array:
    """Rotation matrices of quaternions.

    Args:
      quats: [..., 4] wxyz, any norm; below 1e-6 it is taken for the identity.

    Returns:
      [..., 3, 3].
    """
    w, x, y, z = jnp.moveaxis(quats, -1, 0)
    norm2 = w * w + x * x + y * y + z * z
    s = 2.0 / jnp.where(norm2 > 1e-12, norm2, 1.0)
    rows = [
        1 - s * (y * y + z * z),
        s * (x * y - w * z),
        s * (x * z + w * y),
        s * (x * y + w * z),
        1 - s * (x * x + z * z),
        s * (y * z - w * x),
        s * (x * z - w * y),
        s * (y * z + w * x),
        1 - s * (x * x + y * y),
    ]
    return jnp.stack(rows, axis=-1).reshape(*quats.shape[:-1], 3, 3)


def quat_multiply(a: jax.Array, b: jax.Array) -> jax.Array:
    """Hamilton product of wxyz quaternions [..., 4]: first rotate by b, then by a."""
    aw, ax, ay, az = jnp.moveaxis(a, -1, 0)
    bw, bx, by, bz = jnp.moveaxis(b, -1, 0)
    return jnp.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=-1,
    )


def rotmat_to_quat(rotation: jax.Array) -> jax.Array:
    """Unit wxyz quaternion of a rotation matrix [3, 3], stable for every angle."""
    m = rotation
    trace_terms = jnp.stack(
        [
            1 + m[0, 0] + m[1, 1] + m[2, 2],
            1 + m[0, 0] - m[1, 1] - m[2, 2],
            1 - m[0, 0] + m[1, 1] - m[2, 2],
            1 - m[0, 0] - m[1, 1] + m[2, 2],
        ]
    )
    wx, wy, wz = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
    xy, xz, yz = m[1, 0] + m[0, 1], m[0, 2] + m[2, 0], m[2, 1] + m[1, 2]
    candidates = jnp.stack(
        [
            jnp.stack([trace_terms[0], wx, wy, wz]),
            jnp.stack([wx, trace_terms[1], xy, xz]),
            jnp.stack([wy, xy, trace_terms[2], yz]),
            jnp.stack([wz, xz, yz, trace_terms[3]]),
        ]
    )
    return safe_normalize(candidates[jnp.argmax(trace_terms)])


def logit(p: jax.Array, eps: float = 1e-6) -> jax.Array:
    """Inverse sigmoid, finite at 0 and 1."""
    p = jnp.clip(p, eps, 1 - eps)
    return jnp.log(p) - jnp.log1p(-p)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def clip_with_way_back(
    x: jax.Array, low: float | None = None, high: float | None = None
) -> jax.Array:
    """`jnp.clip` that what lies outside can come back from.

    The gradient beyond a bound is `clip`'s zero where a step against it would lead
    further out, and passes where it would lead back. None: there is no such bound.
    """
    return jnp.clip(x, low, high)


def _clip_forward(x, low, high):
    return jnp.clip(x, low, high), x


def _clip_backward(low, high, x, gradient):
    passes = jnp.ones(x.shape, bool)
    if low is not None:
        passes &= (x >= low) | (gradient < 0)
    if high is not None:
        passes &= (x <= high) | (gradient > 0)
    return (jnp.where(passes, gradient, 0.0),)


clip_with_way_back.defvjp(_clip_forward, _clip_backward)
