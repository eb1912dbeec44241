"""Signed distances of observed points, and how they change with every unknown.

Residuals are distances of points to the model's surface. The backward field needs no
inversion: sdf(x + offset, hyper) is evaluated where the points are. One reverse pass
gives each point its own gradient with respect to all that it reads, since no point
reads another: the whole Jacobian for the price of a few evaluations.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from npga_jax.core import Array, Params, exact_products, rotmat_to_quat, safe_norm
from npga_jax.nphm import (
    Codes,
    NPHMConfig,
    apply_deformation,
    canonical_field,
    deform,
    deformation_condition,
    predict_anchors,
)

POSE_DIM = 6
"""Rotation vector and translation of a pose residual."""


class PointResiduals(NamedTuple):
    """One frame's points against the model."""

    sdf: jax.Array  # [P] NPHM units
    normals: jax.Array  # [P, 3] d sdf / d x in the model's frame
    jacobian: jax.Array  # [P, 6 + E] or [P, 6 + E + G]: pose, expression, identity


@exact_products
def rotation_matrix(vector: Array) -> jax.Array:
    """Rodrigues' formula, smooth at zero: [3] -> [3, 3]."""
    squared = jnp.sum(vector**2)
    small = squared < 1e-8
    safe = jnp.where(small, 1.0, squared)
    angle = jnp.sqrt(safe)
    a = jnp.where(small, 1 - squared / 6, jnp.sin(angle) / angle)
    b = jnp.where(small, 0.5 - squared / 24, (1 - jnp.cos(angle)) / safe)
    x, y, z = vector
    zero = jnp.zeros_like(x)
    cross = jnp.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]])
    return jnp.eye(3) + a * cross + b * (cross @ cross)


def rotation_vector(rotation: jax.Array) -> jax.Array:
    """Inverse of `rotation_matrix`, of length 0 to pi: [3, 3] -> [3].

    By way of a quaternion: the matrix of a half turn is symmetric, so that its
    antisymmetric part alone would not tell the axis.
    """
    quat = rotmat_to_quat(rotation)
    quat = jnp.where(quat[0] < 0, -quat, quat)
    sine = safe_norm(quat[1:])
    small = sine < 1e-6
    angle = 2 * jnp.arctan2(sine, quat[0])
    return jnp.where(small, 2.0, angle / jnp.where(small, 1.0, sine)) * quat[1:]


@exact_products
def apply_pose(pose: Array, points: jax.Array) -> jax.Array:
    """Moves observed points into the model's frame by a pose residual.

    Args:
      pose: [6] rotation vector (radians, about the model's origin) and translation
        (NPHM units).
      points: [P, 3].
    """
    return points @ rotation_matrix(pose[:3]).T + pose[3:]


def pose_jacobian(points: jax.Array, gradient: jax.Array) -> jax.Array:
    """Of the distance, for a further small rotation and translation: [P, 6]."""
    return jnp.concatenate([jnp.cross(points, gradient), gradient], axis=-1)


def distances(
    params: Params, cfg: NPHMConfig, points: jax.Array, geo: Array, exp: Array
) -> jax.Array:
    """Signed distances [P] of points [P, 3] in the model's frame, for one frame."""
    codes = Codes(geo=geo[None], app=jnp.zeros((1, cfg.lat_dim_app)), exp=exp[None])
    anchors = predict_anchors(params, cfg, codes.geo)
    queries = deform(params, cfg, points[None], codes, anchors)
    field = canonical_field(params, cfg, queries, codes, anchors, with_color=False)
    return field.sdf[0]


def expression_residuals(
    params: Params, cfg: NPHMConfig, points: jax.Array, geo: jax.Array, exp: jax.Array
) -> PointResiduals:
    """Distances with the Jacobian of pose and expression; identity is held.

    Args:
      points: [P, 3] in the model's frame.
      geo: [lat_dim_geo].
      exp: [lat_dim_exp].
    """
    codes = Codes(geo=geo[None], app=jnp.zeros((1, cfg.lat_dim_app)), exp=exp[None])
    anchors = predict_anchors(params, cfg, codes.geo)
    condition = deformation_condition(params, cfg, codes, anchors)

    def total(x, own_condition):
        outputs = apply_deformation(
            params["deformation"]["layers"], x[:, None], own_condition
        )[:, 0]
        queries = outputs.at[:, :3].add(x)[None]
        field = canonical_field(params, cfg, queries, codes, anchors, with_color=False)
        return jnp.sum(field.sdf), field.sdf[0]

    own = jnp.broadcast_to(condition, (points.shape[0], condition.shape[-1]))
    (gradient, by_condition), sdf = jax.grad(total, argnums=(0, 1), has_aux=True)(
        points, own
    )
    by_exp = by_condition[:, -cfg.lat_dim_exp :]
    jacobian = jnp.concatenate([pose_jacobian(points, gradient), by_exp], axis=-1)
    return PointResiduals(sdf=sdf, normals=gradient, jacobian=jacobian)


def identity_residuals(
    params: Params, cfg: NPHMConfig, points: jax.Array, geo: jax.Array, exp: jax.Array
) -> PointResiduals:
    """Distances with the Jacobian of pose, expression and identity.

    Every point is given a head of its own, so that one reverse pass keeps their
    gradients apart. About three times the work of `expression_residuals`.
    """
    count = points.shape[0]

    def total(x, own_exp, own_geo):
        codes = Codes(geo=own_geo, app=jnp.zeros((count, cfg.lat_dim_app)), exp=own_exp)
        anchors = predict_anchors(params, cfg, codes.geo)
        queries = deform(params, cfg, x[:, None], codes, anchors)
        field = canonical_field(params, cfg, queries, codes, anchors, with_color=False)
        return jnp.sum(field.sdf), field.sdf[:, 0]

    own_geo = jnp.broadcast_to(geo, (count, geo.shape[0]))
    own_exp = jnp.broadcast_to(exp, (count, exp.shape[0]))
    (gradient, by_exp, by_geo), sdf = jax.grad(total, argnums=(0, 1, 2), has_aux=True)(
        points, own_exp, own_geo
    )
    jacobian = jnp.concatenate(
        [pose_jacobian(points, gradient), by_exp, by_geo], axis=-1
    )
    return PointResiduals(sdf=sdf, normals=gradient, jacobian=jacobian)
