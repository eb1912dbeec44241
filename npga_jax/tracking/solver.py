"""Levenberg-Marquardt over identity, expressions and pose residuals of many frames.

The unknowns of a frame (pose residual and expression) meet those of other frames only
through the identity they share and through temporal smoothness, so the normal equations
are an arrow: frames are eliminated one by one (Schur complement), and the identity is
solved for at the end. Temporal neighbours are held at their last values.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from npga_jax.core import Array, Params, exact_products
from npga_jax.nphm import Codes, NPHMConfig, deformation_condition, predict_anchors
from npga_jax.tracking.appearance import (
    Appearance,
    canonical_channels,
    color_cost,
    color_residuals,
    color_weights,
)
from npga_jax.tracking.residuals import (
    POSE_DIM,
    apply_pose,
    distances,
    expression_residuals,
    identity_residuals,
    rotation_matrix,
    rotation_vector,
)


class Observations(NamedTuple):
    """Points of T frames, P each, brought near the model's frame by a first pose."""

    points: jax.Array  # [T, P, 3] NPHM units
    normals: jax.Array  # [T, P, 3] outward, unit length; zero where unknown
    weights: jax.Array  # [T, P] 0 for padding and for what the model does not have


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


def _neighbours(exp: Array, links: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sum of the codes of the frames before and after, and their number."""
    before = jnp.roll(exp, 1, axis=0) * links[:, None]
    after_link = jnp.roll(links, -1)
    after = jnp.roll(exp, -1, axis=0) * after_link[:, None]
    return before + after, links + after_link


def frame_cost(
    params: Params,
    cfg: NPHMConfig,
    observations: Observations,
    unknowns: Unknowns,
    links: jax.Array,
    prior: PriorWeights,
    robust: Robust,
) -> jax.Array:
    """What each frame costs, its own priors included and the identity's left out.

    Args:
      links: [T] 1 where the frame before it in the arrays comes before it in time.

    Returns:
      [T].
    """

    def data(frame):
        points, weights, pose, exp = frame
        residual = distances(params, cfg, apply_pose(pose, points), unknowns.geo, exp)
        return robust_cost(residual, weights, robust)

    cost = jax.lax.map(
        data,
        (observations.points, observations.weights, unknowns.pose, unknowns.exp),
    )
    cost = cost / prior.noise**2
    cost += jnp.sum(prior.exp * unknowns.exp**2, axis=-1)
    cost += prior.pose_rotation * jnp.sum(unknowns.pose[:, :3] ** 2, axis=-1)
    cost += prior.pose_translation * jnp.sum(unknowns.pose[:, 3:] ** 2, axis=-1)
    step = unknowns.exp - jnp.roll(unknowns.exp, 1, axis=0)
    smooth = links * jnp.sum(step**2, axis=-1)
    return cost + prior.smooth_exp * (smooth + jnp.roll(smooth, -1))


def _total_cost(params, cfg, observations, unknowns, links, prior, robust) -> jax.Array:
    """What all costs together: []. A pull between two frames counts once."""
    frames = frame_cost(params, cfg, observations, unknowns, links, prior, robust)
    step = unknowns.exp - jnp.roll(unknowns.exp, 1, axis=0)
    twice = prior.smooth_exp * jnp.sum(links * jnp.sum(step**2, axis=-1))
    return jnp.sum(frames) - twice + identity_prior(cfg, unknowns.geo, prior)[2]


class _Frame(NamedTuple):
    """What a step reads of one frame; with one more axis in front, of all frames."""

    points: jax.Array  # [P, 3]
    normals: jax.Array  # [P, 3]
    weights: jax.Array  # [P]
    pose: Array  # [6]
    exp: Array  # [E]
    near_exp: jax.Array  # [E] sum of the codes of the frames before and after
    num_near: jax.Array  # [] how many they are


class _Equations(NamedTuple):
    """Normal equations of one frame, its own priors included."""

    matrix: jax.Array  # [N, N], N = 6 + E or 6 + E + G
    right: jax.Array  # [N]
    weights: jax.Array  # [P] of the observation, zero where the normal test drops it


def _frames(observations: Observations, unknowns: Unknowns, links: jax.Array) -> _Frame:
    near_exp, num_near = _neighbours(unknowns.exp, links)
    return _Frame(*observations, unknowns.pose, unknowns.exp, near_exp, num_near)


def _frame_equations(
    residual_fn, params, cfg, frame: _Frame, geo, prior, robust
) -> _Equations:
    moved = apply_pose(frame.pose, frame.points)
    turned = frame.normals @ rotation_matrix(frame.pose[:3]).T
    result = residual_fn(params, cfg, moved, geo, frame.exp)
    weights = facing_weights(result.normals, turned, frame.weights, robust)
    weighted = point_weights(result.sdf, weights, robust)[:, None] * result.jacobian
    scale = 1.0 / prior.noise**2
    precision, pull = _frame_prior(frame, prior)
    others = (0, result.jacobian.shape[1] - precision.shape[0])
    return _Equations(
        matrix=scale * (weighted.T @ result.jacobian)
        + jnp.diag(jnp.pad(precision, others)),
        right=-scale * (weighted.T @ result.sdf) + jnp.pad(pull, others),
        weights=weights,
    )


def _condition(params, cfg, geo: Array, exp: Array) -> jax.Array:
    """Of the deformation, for one head: [C]."""
    app = jnp.zeros((1, cfg.lat_dim_app))
    codes = Codes(geo=geo[None], app=app, exp=exp[None])
    anchors = predict_anchors(params, cfg, codes.geo)
    return deformation_condition(params, cfg, codes, anchors)[0]


def _with_colors(
    equations: _Equations, params, cfg, frame: _Frame, geo, appearance, observed
) -> _Equations:
    """Adds what colours [P, C] say to one frame's equations."""
    residual, jacobian = color_residuals(
        params,
        cfg,
        appearance.texture,
        apply_pose(frame.pose, frame.points),
        _condition(params, cfg, geo, frame.exp),
        observed,
    )
    weighted = color_weights(residual, equations.weights)[..., None] * jacobian
    scale = 1.0 / appearance.noise**2
    return equations._replace(
        matrix=equations.matrix + scale * jnp.einsum("cpi,cpj->ij", weighted, jacobian),
        right=equations.right - scale * jnp.einsum("cpi,cp->i", weighted, residual),
    )


def _color_costs(params, cfg, observations, unknowns, appearance) -> jax.Array:
    """What the colours of each frame cost: [T]."""

    def one(frame):
        points, weights, pose, exp, observed = frame
        channels = canonical_channels(
            params,
            appearance.texture,
            apply_pose(pose, points),
            _condition(params, cfg, unknowns.geo, exp),
        )
        return color_cost((channels - observed).T, weights)

    cost = jax.lax.map(
        one,
        (
            observations.points,
            observations.weights,
            unknowns.pose,
            unknowns.exp,
            appearance.channels,
        ),
    )
    return cost / appearance.noise**2


def _frame_prior(frame: _Frame, prior) -> tuple[jax.Array, jax.Array]:
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


def _damped(matrix: jax.Array, damping: jax.Array) -> jax.Array:
    return matrix + jnp.diag(damping * jnp.diag(matrix))


def _keep_better(better: jax.Array, trial, old, damping: jax.Array):
    """The trial's values where they are better, else the old ones; the next damping.

    Args:
      better: [] or [T].
      trial: arrays, [T, ...] where `better` is [T]; likewise `old`.
      damping: as `better`.
    """

    def choose(new: jax.Array, before: jax.Array) -> jax.Array:
        shape = better.shape + (1,) * (new.ndim - better.ndim)
        return jnp.where(better.reshape(shape), new, before)

    damping = jnp.where(better, damping * 0.3, damping * 10.0)
    return jax.tree.map(choose, trial, old), jnp.clip(damping, 1e-6, 1e3)


def _compose(pose: Array, update: jax.Array) -> jax.Array:
    """A pose residual followed by a small motion: [6], [6] -> [6]."""
    turn = rotation_matrix(update[:3])
    rotation = rotation_vector(turn @ rotation_matrix(pose[:3]))
    return jnp.concatenate([rotation, turn @ pose[3:] + update[3:]])


@exact_products
def solve_expressions(
    params: Params,
    cfg: NPHMConfig,
    observations: Observations,
    unknowns: Unknowns,
    links: jax.Array,
    damping: jax.Array,
    prior: PriorWeights,
    robust: Robust,
    appearance: Appearance | None = None,
) -> tuple[Unknowns, jax.Array]:
    """One damped step of every frame's pose and expression; identity is held.

    A frame whose cost would rise keeps its values and is damped more next time. Both
    costs are of the points that the normal test keeps before the step.

    Args:
      damping: [T] relative to the diagonal.
      appearance: colours to fit beside geometry.

    Returns:
      The unknowns, and the next damping [T].
    """
    channels = None if appearance is None else appearance.channels

    def one(inputs):
        frame, damp, observed = inputs
        equations = _frame_equations(
            expression_residuals, params, cfg, frame, unknowns.geo, prior, robust
        )
        if appearance is not None:
            equations = _with_colors(
                equations, params, cfg, frame, unknowns.geo, appearance, observed
            )
        step = jax.scipy.linalg.solve(
            _damped(equations.matrix, damp), equations.right, assume_a="pos"
        )
        pose = _compose(frame.pose, step[:POSE_DIM])
        return pose, frame.exp + step[POSE_DIM:], equations.weights

    frames = _frames(observations, unknowns, links)
    pose, exp, weights = jax.lax.map(one, (frames, damping, channels))
    counted = observations._replace(weights=weights)

    def cost(values):
        total = frame_cost(params, cfg, counted, values, links, prior, robust)
        if appearance is not None:
            total += _color_costs(params, cfg, counted, values, appearance)
        return total

    before, after = cost(unknowns), cost(unknowns._replace(pose=pose, exp=exp))
    # Neighbours move at the same time, so a little more is not yet a failure.
    better = (after < before * 1.001) & jnp.isfinite(after)
    (pose, exp), damping = _keep_better(
        better, (pose, exp), (unknowns.pose, unknowns.exp), damping
    )
    return unknowns._replace(pose=pose, exp=exp), damping


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


@exact_products
def solve_identity(
    params: Params,
    cfg: NPHMConfig,
    observations: Observations,
    unknowns: Unknowns,
    links: jax.Array,
    damping: jax.Array,
    prior: PriorWeights,
    robust: Robust,
) -> tuple[Unknowns, jax.Array]:
    """One damped step of the identity and of all frames together.

    The costs compared are of the points that the normal test keeps before the step.

    Args:
      damping: [] relative to the diagonal.

    Returns:
      The unknowns (unchanged if the cost would rise), and the next damping [].
    """
    inner = POSE_DIM + cfg.lat_dim_exp

    def one(carry, frame):
        equations = _frame_equations(
            identity_residuals, params, cfg, frame, unknowns.geo, prior, robust
        )
        matrix, right = equations.matrix, equations.right
        cross = matrix[:inner, inner:]
        solved = jax.scipy.linalg.solve(
            _damped(matrix[:inner, :inner], damping),
            jnp.concatenate([cross, right[:inner, None]], axis=1),
            assume_a="pos",
        )
        by_geo, rest = solved[:, :-1], solved[:, -1]
        shared, shared_right = carry
        shared = shared + matrix[inner:, inner:] - cross.T @ by_geo
        shared_right = shared_right + right[inner:] - cross.T @ rest
        return (shared, shared_right), (by_geo, rest, equations.weights)

    precision, pull, _ = identity_prior(cfg, unknowns.geo, prior)
    (shared, right), (by_geo, rest, weights) = jax.lax.scan(
        one, (precision, pull), _frames(observations, unknowns, links)
    )
    geo_step = jax.scipy.linalg.solve(_damped(shared, damping), right, assume_a="pos")
    frame_step = rest - by_geo @ geo_step
    trial = Unknowns(
        geo=unknowns.geo + geo_step,
        exp=unknowns.exp + frame_step[:, POSE_DIM:],
        pose=jax.vmap(_compose)(unknowns.pose, frame_step[:, :POSE_DIM]),
    )
    counted = observations._replace(weights=weights)

    def cost(values):
        return _total_cost(params, cfg, counted, values, links, prior, robust)

    before, after = cost(unknowns), cost(trial)
    better = (after < before) & jnp.isfinite(after)
    return _keep_better(better, trial, unknowns, damping)
