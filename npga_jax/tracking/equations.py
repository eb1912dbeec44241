"""Normal equations of one frame: observed points against the model, and its priors."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from npga_jax.core import Array
from npga_jax.nphm import NPHMConfig
from npga_jax.tracking.residuals import (
    POSE_DIM,
    apply_pose,
    rotation_matrix,
    rotation_vector,
)


class Observations(NamedTuple):
    """Points of T frames, P each, brought near the model's frame by a first pose."""

    points: jax.Array  # [T, P, 3] NPHM units
    normals: jax.Array  # [T, P, 3] outward, unit length; zero where unknown
    weights: jax.Array  # [T, P] 0 for padding and for what the model does not have


def unobserved(count: int) -> Observations:
    """Frames without clouds: one point each, which counts for nothing."""
    point = jnp.zeros((count, 1, 3))
    return Observations(point, point, jnp.zeros((count, 1)))


class Unknowns(NamedTuple):
    """What is solved for."""

    geo: Array  # [G] identity
    exp: Array  # [T, E] expression
    pose: Array  # [T, 6] rotation vector and translation, see `apply_pose`


class PriorWeights(NamedTuple):
    """How strongly unknowns are held, as precisions in units of one residual.

    A residual of `noise` counts as much as a code one standard deviation from zero.
    """

    noise: jax.Array | float = 0.004  # NPHM units (1 mm)
    geo: Array | float = 25.0  # [G] or []; 1 / variance
    exp: Array | float = 25.0  # [E] or []
    smooth_exp: jax.Array | float = 0.0  # per neighbour in time
    pose_rotation: jax.Array | float = 1e2  # 1 / radian^2
    pose_translation: jax.Array | float = 1e2  # 1 / unit^2
    symmetry: jax.Array | float = 0.0  # of the local codes of mirror pairs


class Robust(NamedTuple):
    """Which points count."""

    scale: jax.Array | float  # NPHM units; Geman-McClure's
    cutoff: jax.Array | float  # NPHM units; farther points do not count
    min_cosine: jax.Array | float  # between observed and model normal


def facing_weights(
    gradient: jax.Array, normals: jax.Array, weights: jax.Array, robust: Robust
) -> jax.Array:
    """Weights [P], zero where the model's surface faces elsewhere than the point."""
    known = jnp.sum(normals**2, axis=-1) > 0.25
    length = jnp.sqrt(jnp.sum(gradient**2, axis=-1) + 1e-12)
    cosine = jnp.sum(normals * gradient, axis=-1) / length
    return jnp.where(known & (cosine < robust.min_cosine), 0.0, weights)


def point_weights(residual: jax.Array, weights: jax.Array, robust: Robust) -> jax.Array:
    """Weights of iteratively reweighted least squares: [P]."""
    squared = robust.scale**2
    weight = weights * (squared / (squared + residual**2)) ** 2
    return jnp.where(jnp.abs(residual) < robust.cutoff, weight, 0.0)


def robust_cost(residual: jax.Array, weights: jax.Array, robust: Robust) -> jax.Array:
    """Sum of Geman-McClure's losses: []."""
    squared = jnp.minimum(residual**2, robust.cutoff**2)
    return jnp.sum(weights * robust.scale**2 * squared / (robust.scale**2 + squared))


def neighbours(exp: Array, links: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sum of the codes of the frames before and after, and their number."""
    before = jnp.roll(exp, 1, axis=0) * links[:, None]
    after_link = jnp.roll(links, -1)
    after = jnp.roll(exp, -1, axis=0) * after_link[:, None]
    return before + after, links + after_link


class FrameState(NamedTuple):
    """What a step reads of one frame; with one more axis in front, of all frames."""

    points: jax.Array  # [P, 3]
    normals: jax.Array  # [P, 3]
    weights: jax.Array  # [P]
    pose: Array  # [6]
    exp: Array  # [E]
    near_exp: jax.Array  # [E] sum of the codes of the frames before and after
    num_near: jax.Array  # [] how many they are


class Equations(NamedTuple):
    """Normal equations of one frame, its own priors included."""

    matrix: jax.Array  # [N, N], N = 6 + E or 6 + E + G
    right: jax.Array  # [N]
    weights: jax.Array  # [P] of the observation, zero where the normal test drops it
    cost: jax.Array  # [] of what is observed, where these equations are taken


def frame_states(
    observations: Observations, unknowns: Unknowns, links: jax.Array
) -> FrameState:
    """The state of every frame: arrays [T, ...]."""
    near_exp, num_near = neighbours(unknowns.exp, links)
    return FrameState(*observations, unknowns.pose, unknowns.exp, near_exp, num_near)


def frame_equations(
    residual_fn, params, cfg, frame: FrameState, geo, prior, robust
) -> Equations:
    """Of one frame: its points, and what holds its unknowns.

    Args:
      residual_fn: `expression_residuals` or `identity_residuals`.
    """
    moved = apply_pose(frame.pose, frame.points)
    turned = frame.normals @ rotation_matrix(frame.pose[:3]).T
    result = residual_fn(params, cfg, moved, geo, frame.exp)
    weights = facing_weights(result.normals, turned, frame.weights, robust)
    weighted = point_weights(result.sdf, weights, robust)[:, None] * result.jacobian
    scale = 1.0 / prior.noise**2
    precision, pull = frame_prior(frame, prior)
    others = (0, result.jacobian.shape[1] - precision.shape[0])
    return Equations(
        matrix=scale * (weighted.T @ result.jacobian)
        + jnp.diag(jnp.pad(precision, others)),
        right=-scale * (weighted.T @ result.sdf) + jnp.pad(pull, others),
        weights=weights,
        cost=scale * robust_cost(result.sdf, weights, robust),
    )


def frame_prior(frame: FrameState, prior) -> tuple[jax.Array, jax.Array]:
    """Precisions and right-hand sides of one frame's own priors: [6 + E] each."""
    exp = jnp.broadcast_to(prior.exp, frame.exp.shape)
    precision = jnp.concatenate(
        [
            jnp.full(3, prior.pose_rotation),
            jnp.full(3, prior.pose_translation),
            exp + prior.smooth_exp * frame.num_near,
        ]
    )
    values = jnp.concatenate([frame.pose, frame.exp])
    pull = jnp.concatenate([jnp.zeros(POSE_DIM), prior.smooth_exp * frame.near_exp])
    return precision, pull - precision * values


def compose(pose: Array, update: jax.Array) -> jax.Array:
    """A pose residual followed by a small motion: [6], [6] -> [6]."""
    turn = rotation_matrix(update[:3])
    rotation = rotation_vector(turn @ rotation_matrix(pose[:3]))
    return jnp.concatenate([rotation, turn @ pose[3:] + update[3:]])


def identity_prior(
    cfg: NPHMConfig, geo: Array, prior: PriorWeights
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Precision matrix of the identity code, its pull at `geo`, and its cost.

    Besides the pull to zero, `symmetry` joins the local codes of mirror pairs.
    """
    dim = cfg.lat_dim_geo
    precision = jnp.diag(jnp.broadcast_to(prior.geo, (dim,)))
    loc = cfg.lat_dim_loc_geo
    start = cfg.lat_dim_glob
    even = start + jnp.arange(cfg.num_symm_pairs)[:, None] * 2 * loc
    even = (even + jnp.arange(loc)).reshape(-1)
    odd = even + loc
    precision = precision.at[even, even].add(prior.symmetry)
    precision = precision.at[odd, odd].add(prior.symmetry)
    precision = precision.at[even, odd].add(-prior.symmetry)
    precision = precision.at[odd, even].add(-prior.symmetry)
    pull = -precision @ geo
    return precision, pull, -pull @ geo
