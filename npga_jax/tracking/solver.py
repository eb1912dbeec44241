"""Levenberg-Marquardt over identity, expressions and pose residuals of many frames.

The unknowns of a frame (pose residual and expression) meet those of other frames only
through the identity they share and through temporal smoothness, so the normal equations
are an arrow: frames are eliminated one by one (Schur complement), and the identity is
solved for at the end. Temporal neighbours are held at their last values.
"""

import jax
import jax.numpy as jnp

from npga_jax.core import Params, exact_products
from npga_jax.nphm import NPHMConfig
from npga_jax.tracking.equations import (
    Observations,
    PriorWeights,
    Robust,
    Unknowns,
    compose,
    frame_equations,
    frame_states,
    identity_prior,
    robust_cost,
)
from npga_jax.tracking.residuals import (
    POSE_DIM,
    apply_pose,
    distances,
    expression_residuals,
    identity_residuals,
)
from npga_jax.tracking.terms import (
    Head,
    Terms,
    add_term,
    frames_of,
    term_cost,
    with_frames,
)


def frame_cost(
    params: Params,
    cfg: NPHMConfig,
    observations: Observations,
    unknowns: Unknowns,
    links: jax.Array,
    prior: PriorWeights,
    robust: Robust,
    terms: Terms = (),
) -> jax.Array:
    """What each frame costs, its own priors included and the identity's left out.

    Args:
      links: [T] 1 where the frame before it in the arrays comes before it in time.

    Returns:
      [T].
    """

    def data(frame):
        points, weights, pose, exp, own = frame
        residual = distances(params, cfg, apply_pose(pose, points), unknowns.geo, exp)
        cost = robust_cost(residual, weights, robust) / prior.noise**2
        head = Head(unknowns.geo, exp, pose)
        for term in with_frames(terms, own):
            cost += term_cost(term, params, cfg, head, weights)
        return cost

    observed = jax.lax.map(
        data,
        (
            observations.points,
            observations.weights,
            unknowns.pose,
            unknowns.exp,
            frames_of(terms),
        ),
    )
    return observed + _held_cost(unknowns, links, prior)


def _held_cost(unknowns: Unknowns, links: jax.Array, prior: PriorWeights) -> jax.Array:
    """What the priors of each frame's own unknowns cost: [T]."""
    cost = jnp.sum(prior.exp * unknowns.exp**2, axis=-1)
    cost += prior.pose_rotation * jnp.sum(unknowns.pose[:, :3] ** 2, axis=-1)
    cost += prior.pose_translation * jnp.sum(unknowns.pose[:, 3:] ** 2, axis=-1)
    step = unknowns.exp - jnp.roll(unknowns.exp, 1, axis=0)
    smooth = links * jnp.sum(step**2, axis=-1)
    return cost + prior.smooth_exp * (smooth + jnp.roll(smooth, -1))


def _total_cost(cfg, frames: jax.Array, unknowns, links, prior) -> jax.Array:
    """All costs together, of frames [T]: []. A pull between two counts once."""
    step = unknowns.exp - jnp.roll(unknowns.exp, 1, axis=0)
    twice = prior.smooth_exp * jnp.sum(links * jnp.sum(step**2, axis=-1))
    return jnp.sum(frames) - twice + identity_prior(cfg, unknowns.geo, prior)[2]


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
    terms: Terms = (),
) -> tuple[Unknowns, jax.Array]:
    """One damped step of every frame's pose and expression; identity is held.

    A frame whose cost would rise keeps its values and is damped more next time. Both
    costs are of the points that the normal test keeps before the step.

    Args:
      damping: [T] relative to the diagonal.
      terms: what is to be fitted beside geometry.

    Returns:
      The unknowns, and the next damping [T].
    """

    def one(inputs):
        frame, damp, own = inputs
        equations = frame_equations(
            expression_residuals, params, cfg, frame, unknowns.geo, prior, robust
        )
        head = Head(unknowns.geo, frame.exp, frame.pose)
        for term in with_frames(terms, own):
            equations = add_term(
                equations, term, params, cfg, head, with_identity=False
            )
        step = jax.scipy.linalg.solve(
            _damped(equations.matrix, damp), equations.right, assume_a="pos"
        )
        pose = compose(frame.pose, step[:POSE_DIM])
        exp = frame.exp + step[POSE_DIM:]
        return pose, exp, equations.weights, equations.cost

    frames = frame_states(observations, unknowns, links)
    pose, exp, weights, cost = jax.lax.map(one, (frames, damping, frames_of(terms)))
    before = cost + _held_cost(unknowns, links, prior)
    after = frame_cost(
        params,
        cfg,
        observations._replace(weights=weights),
        unknowns._replace(pose=pose, exp=exp),
        links,
        prior,
        robust,
        terms,
    )
    # Neighbours move at the same time, so a little more is not yet a failure.
    better = (after < before * 1.001) & jnp.isfinite(after)
    (pose, exp), damping = _keep_better(
        better, (pose, exp), (unknowns.pose, unknowns.exp), damping
    )
    return unknowns._replace(pose=pose, exp=exp), damping


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
    terms: Terms = (),
) -> tuple[Unknowns, jax.Array]:
    """One damped step of the identity and of all frames together.

    The costs compared are of the points that the normal test keeps before the step.

    Args:
      damping: [] relative to the diagonal.
      terms: what is to be fitted beside geometry; those that know the identity.

    Returns:
      The unknowns (unchanged if the cost would rise), and the next damping [].
    """
    inner = POSE_DIM + cfg.lat_dim_exp

    def one(carry, inputs):
        frame, own = inputs
        equations = frame_equations(
            identity_residuals, params, cfg, frame, unknowns.geo, prior, robust
        )
        head = Head(unknowns.geo, frame.exp, frame.pose)
        for term in with_frames(terms, own):
            equations = add_term(equations, term, params, cfg, head, with_identity=True)
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
        kept = (by_geo, rest, equations.weights, equations.cost)
        return (shared, shared_right), kept

    precision, pull, _ = identity_prior(cfg, unknowns.geo, prior)
    (shared, right), (by_geo, rest, weights, cost) = jax.lax.scan(
        one,
        (precision, pull),
        (frame_states(observations, unknowns, links), frames_of(terms)),
    )
    geo_step = jax.scipy.linalg.solve(_damped(shared, damping), right, assume_a="pos")
    frame_step = rest - by_geo @ geo_step
    trial = Unknowns(
        geo=unknowns.geo + geo_step,
        exp=unknowns.exp + frame_step[:, POSE_DIM:],
        pose=jax.vmap(compose)(unknowns.pose, frame_step[:, :POSE_DIM]),
    )
    before = cost + _held_cost(unknowns, links, prior)
    after = frame_cost(
        params,
        cfg,
        observations._replace(weights=weights),
        trial,
        links,
        prior,
        robust,
        terms,
    )
    before = _total_cost(cfg, before, unknowns, links, prior)
    after = _total_cost(cfg, after, trial, links, prior)
    better = (after < before) & jnp.isfinite(after)
    return _keep_better(better, trial, unknowns, damping)
