"""Inverts a deformation: finds the point that it brings to a given place.

Broyden's method for many points at once, and the implicit gradient of what it finds.
Sources: Broyden (1965), the "good" update; stop rules and constants of MonoNPHM's
`iterative_root_finding.py`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from npga_jax.core import Params, exact_products
from npga_jax.nphm.codes import Codes
from npga_jax.nphm.config import NPHMConfig
from npga_jax.nphm.model import deform

Displace = Callable[[jax.Array], jax.Array]
"""[..., 3] -> [..., 3]; a point's image depends on that point alone."""

_SMALLEST_DENOMINATOR = 1e-6
_SMALLEST_DETERMINANT = 1e-6


class StopRules(NamedTuple):
    """When the search for a root ends; the defaults are MonoNPHM's."""

    converged: float = 5e-5
    """A residual up to this length is a root."""
    diverged: float = 0.1
    """A residual from this length on is given up."""
    max_steps: int = 30


class RootResult(NamedTuple):
    """Roots, one for each target."""

    points: jax.Array  # [..., 3] the best iterate
    valid: jax.Array  # [...] bool, whether it is a root
    residuals: jax.Array  # [...] distance of its image from the target


def invert_3x3(matrices: jax.Array) -> jax.Array:
    """Inverse by cofactors: [..., 3, 3]; finite for a singular matrix, and wrong."""
    a, b, c = jnp.moveaxis(matrices, -2, 0)
    columns = [jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)]
    determinant = jnp.sum(a * columns[0], axis=-1)
    sign = jnp.where(determinant < 0, -1.0, 1.0)
    determinant = sign * jnp.maximum(jnp.abs(determinant), _SMALLEST_DETERMINANT)
    return jnp.stack(columns, axis=-1) / determinant[..., None, None]


def pointwise_jacobian(displace: Displace, points: jax.Array) -> jax.Array:
    """Of every point, d displace_i / d x_j: [..., 3] -> [..., 3, 3]."""

    def along(axis: jax.Array) -> jax.Array:
        tangents = jnp.broadcast_to(axis, points.shape)
        return jax.jvp(displace, (points,), (tangents,))[1]

    return jax.vmap(along, out_axes=-1)(jnp.eye(3, dtype=points.dtype))


class _Search(NamedTuple):
    step: jax.Array  # []
    active: jax.Array  # [...] bool
    points: jax.Array  # [..., 3]
    errors: jax.Array  # [..., 3] image minus target
    inverse: jax.Array  # [..., 3, 3] estimate of the inverse Jacobian
    best_points: jax.Array  # [..., 3]
    best_residuals: jax.Array  # [...]


@exact_products
def find_roots(
    displace: Displace,
    targets: jax.Array,
    starts: jax.Array | None = None,
    *,
    rules: StopRules = StopRules(),  # noqa: B008 - immutable
) -> RootResult:
    """Solves displace(x) = target for every target.

    Args:
      displace: the deformation; it may close over anything.
      targets: [..., 3].
      starts: [..., 3] where to begin; None for the targets themselves, which suits a
        deformation that moves points a little.
      rules: when to stop.

    Returns:
      RootResult without a gradient, see `with_implicit_gradient`. The official code
      returns the last iterate instead of the best: the same for a valid root.
    """
    targets = jax.lax.stop_gradient(targets)
    starts = targets if starts is None else jax.lax.stop_gradient(starts)
    # A loop without a fixed length has no reverse mode, so that nothing in it may be
    # seen by one: what `displace` closes over becomes a constant.
    displace, closed_over = jax.closure_convert(displace, starts)
    closed_over = jax.lax.stop_gradient(closed_over)

    def image(points: jax.Array) -> jax.Array:
        return displace(points, *closed_over)

    def body(search: _Search) -> _Search:
        step = -jnp.einsum("...ij,...j->...i", search.inverse, search.errors)
        step = jnp.where(search.active[..., None], step, 0.0)
        points = search.points + step
        errors = jnp.where(
            search.active[..., None], image(points) - targets, search.errors
        )
        residuals = jnp.linalg.norm(errors, axis=-1)
        better = residuals < search.best_residuals
        best_residuals = jnp.where(better, residuals, search.best_residuals)
        # A residual that is not a number ends the search for its point, too.
        active = (
            search.active
            & (best_residuals > rules.converged)
            & (residuals < rules.diverged)
        )
        change = errors - search.errors
        row = jnp.einsum("...i,...ij->...j", step, search.inverse)
        denominator = jnp.sum(row * change, axis=-1, keepdims=True)
        denominator += jnp.where(
            denominator < 0, -_SMALLEST_DENOMINATOR, _SMALLEST_DENOMINATOR
        )
        column = step - jnp.einsum("...ij,...j->...i", search.inverse, change)
        update = (column / denominator)[..., :, None] * row[..., None, :]
        return _Search(
            step=search.step + 1,
            active=active,
            points=points,
            errors=errors,
            inverse=jnp.where(
                active[..., None, None], search.inverse + update, search.inverse
            ),
            best_points=jnp.where(better[..., None], points, search.best_points),
            best_residuals=best_residuals,
        )

    def unfinished(search: _Search) -> jax.Array:
        return (search.step < rules.max_steps) & jnp.any(search.active)

    errors = image(starts) - targets
    residuals = jnp.linalg.norm(errors, axis=-1)
    found = jax.lax.while_loop(
        unfinished,
        body,
        _Search(
            step=jnp.int32(0),
            # As in the official code, even a start that is a root takes one step.
            active=jnp.ones(residuals.shape, bool),
            points=starts,
            errors=errors,
            inverse=invert_3x3(pointwise_jacobian(image, starts)),
            best_points=starts,
            best_residuals=residuals,
        ),
    )
    return RootResult(
        points=found.best_points,
        valid=found.best_residuals < rules.converged,
        residuals=found.best_residuals,
    )


@exact_products
def with_implicit_gradient(
    displace: Displace, roots: RootResult, targets: jax.Array | None = None
) -> RootResult:
    """Gives roots the gradient that the implicit function theorem says they have.

    From displace(x; z) = y follows dx = J^-1 (dy - d displace / dz), with J the
    Jacobian with respect to x.

    Args:
      displace: the deformation; gradients reach what it closes over.
      roots: of `find_roots`.
      targets: [..., 3] that move with parameters of their own; None if they stand.

    Returns:
      The same roots, differentiable once. Points that are not valid have no gradient.
    """
    # Points without a root may not even be numbers: the origin takes their place.
    found, valid = jax.lax.stop_gradient((roots.points, roots.valid[..., None]))
    points = jnp.where(valid, found, 0.0)
    images = displace(points)
    error = images - jax.lax.stop_gradient(images)
    if targets is not None:
        error -= targets - jax.lax.stop_gradient(targets)
    jacobian = jax.lax.stop_gradient(pointwise_jacobian(displace, points))
    # The correction is zero; only its gradient is not.
    correction = jnp.einsum("...ij,...j->...i", invert_3x3(jacobian), error)
    return roots._replace(points=found - jnp.where(valid, correction, 0.0))


@partial(jax.jit, static_argnames=("cfg", "rules", "targets_move"))
def invert_deformation(
    params: Params,
    cfg: NPHMConfig,
    targets: jax.Array,
    codes: Codes,
    anchors: jax.Array,
    starts: jax.Array | None = None,
    *,
    rules: StopRules = StopRules(),  # noqa: B008 - immutable
    targets_move: bool = False,
) -> RootResult:
    """Poses canonical points: what the backward deformation brings to the targets.

    Args:
      params: see `model.init_params`.
      cfg: sizes.
      targets: [S, P, 3] canonical, NPHM units.
      codes: S heads.
      anchors: [S, n, 3] of `model.predict_anchors`; the deformation reads them.
      starts: [S, P, 3] posed; None for the targets.
      rules: when to stop.
      targets_move: whether gradients reach the targets as well. Not in the official
        code: there, posed anchors follow the deformation's change alone.

    Returns:
      RootResult [S, P] of posed points, differentiable with respect to weights, codes
      and anchors, through the anchors that the deformation reads.
    """

    def displace(points: jax.Array) -> jax.Array:
        return deform(params, cfg, points, codes, anchors)[..., :3]

    roots = find_roots(displace, targets, starts, rules=rules)
    return with_implicit_gradient(displace, roots, targets if targets_move else None)
