"""Evidence beside distances: colours, parts of the face, landmarks.

A term says by how much each of its residuals is off and how that changes with a
frame's unknowns; how residuals are weighed (Geman and McClure's robust loss) is the
same for all.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from npga_jax.core import Array, Params
from npga_jax.nphm import (
    Codes,
    NPHMConfig,
    apply_deformation,
    deformation_condition,
    predict_anchors,
)
from npga_jax.tracking.equations import Equations


class Head(NamedTuple):
    """What is known of one frame's head."""

    geo: Array  # [G]
    exp: Array  # [E]
    pose: Array  # [6]


class Linear(NamedTuple):
    """Residuals of one frame, and their change with its unknowns."""

    values: jax.Array  # [R]
    weights: jax.Array  # [R]
    jacobian: jax.Array  # [R, 6 + E], or [R, 6 + E + G] with the identity


Evaluate = Callable[..., tuple[jax.Array, jax.Array]]
"""(params, cfg, shared, frame, head, point_weights) -> values [R], weights [R]."""
Linearize = Callable[..., Linear]
"""The same, and with_identity -> Linear."""


@flax.struct.dataclass
class Term:
    """One kind of evidence, of all frames."""

    frames: Any  # arrays [T, ...]
    shared: Any  # arrays that are the same for all frames
    noise: Array  # [] that counts as much as a deviation of a code
    scale: Array  # [] residual from which on one counts less
    evaluate: Evaluate = flax.struct.field(pytree_node=False)
    linearize: Linearize = flax.struct.field(pytree_node=False)


Terms = tuple[Term, ...]


def frames_of(terms: Terms) -> tuple[Any, ...]:
    """What terms hold of each frame: arrays [T, ...]."""
    return tuple(term.frames for term in terms)


def with_frames(terms: Terms, frames: tuple[Any, ...]) -> Terms:
    """The same terms of other frames, or of one."""
    return tuple(
        dataclasses.replace(term, frames=own)
        for term, own in zip(terms, frames, strict=True)
    )


def add_term(
    equations: Equations,
    term: Term,
    params: Params,
    cfg: NPHMConfig,
    head: Head,
    *,
    with_identity: bool,
) -> Equations:
    """One frame's equations with what a term says of it.

    Args:
      term: of this frame.
    """
    linear = term.linearize(
        params, cfg, term.shared, term.frames, head, equations.weights, with_identity
    )
    squared = term.scale**2
    robust = linear.weights * (squared / (squared + linear.values**2)) ** 2
    weighted = (robust / term.noise**2)[:, None] * linear.jacobian
    return equations._replace(
        matrix=equations.matrix + weighted.T @ linear.jacobian,
        right=equations.right - weighted.T @ linear.values,
        cost=equations.cost + _cost(term, linear.values, linear.weights),
    )


def term_cost(
    term: Term, params: Params, cfg: NPHMConfig, head: Head, point_weights: jax.Array
) -> jax.Array:
    """What a term of one frame costs: []."""
    values, weights = term.evaluate(
        params, cfg, term.shared, term.frames, head, point_weights
    )
    return _cost(term, values, weights)


def _cost(term: Term, values: jax.Array, weights: jax.Array) -> jax.Array:
    squared = values**2
    loss = term.scale**2 * squared / (term.scale**2 + squared)
    return jnp.sum(weights * loss) / term.noise**2


def condition_of(params: Params, cfg: NPHMConfig, geo: Array, exp: Array) -> jax.Array:
    """What the deformation reads of one head: [C]."""
    app = jnp.zeros((1, cfg.lat_dim_app))
    codes = Codes(geo=geo[None], app=app, exp=exp[None])
    anchors = predict_anchors(params, cfg, codes.geo)
    return deformation_condition(params, cfg, codes, anchors)[0]


def canonical_places(
    params: Params, points: jax.Array, condition: jax.Array
) -> jax.Array:
    """Where points in the model's frame come from: [P, 3], [C] or [P, C] -> [P, 3]."""
    condition = jnp.broadcast_to(condition, (points.shape[0], condition.shape[-1]))
    layers = params["deformation"]["layers"]
    return points + apply_deformation(layers, points[:, None], condition)[:, 0, :3]


def canonical_gradient(
    params: Params,
    cfg: NPHMConfig,
    field: Callable[[jax.Array], jax.Array],
    points: jax.Array,
    condition: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A function of canonical places, seen from the model's frame.

    Args:
      field: [P, 3] -> [P].
      points: [P, 3] in the model's frame.
      condition: [C] of the deformation.

    Returns:
      Values [P], and how they change with the points [P, 3] and with what the
      deformation reads [P, C].
    """
    own = jnp.broadcast_to(condition, (points.shape[0], condition.shape[-1]))

    def total(x, own):
        values = field(canonical_places(params, x, own))
        return jnp.sum(values), values

    (by_point, by_condition), values = jax.grad(total, argnums=(0, 1), has_aux=True)(
        points, own
    )
    return values, by_point, by_condition
