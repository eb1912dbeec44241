"""Training losses of MonoNPHM: scans to scalars, weights and codes free to move.

Source: MonoNPHM's `compute_loss` (an auto-decoder: both networks and all codes are
trained together). Letters: S scans of a batch; everything is in NPHM units.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from npga_jax.core import Array, Params, safe_norm
from npga_jax.nphm.codes import Codes, middle_distance, pair_distance
from npga_jax.nphm.config import NPHMConfig
from npga_jax.nphm.field import EnsembleMethod, Field, canonical_field
from npga_jax.nphm.model import deform, predict_anchors

RANDOM_POINTS = 50
"""Points per scan at which deformations are kept small, wherever they lie."""

RANDOM_BOX = 1.25
"""Half the edge of the cube, around the origin, that those points are drawn from."""

_MAX_OUTER_NORMAL_ERROR = 0.75
_OUTER_NORMAL_WEIGHT = 0.25
_OFF_COLOR_WEIGHT = 0.2
_FAR_SHARPNESS = 10.0
_REST_HYPER_WEIGHT = 10.0


class ScanBatch(NamedTuple):
    """What S scans say. Colours may be None, all of them; points and flags may not.

    A flag takes its scan out of the losses that name it, and its points then need only
    be finite.
    """

    points_surface: Array  # [S, A, 3] posed: the face and its static surroundings
    normals_surface: Array  # [S, A, 3] outward, unit length
    color_surface: Array | None  # [S, A, 3] in [-1, 1]
    points_outer: Array  # [S, O, 3] posed: back of the head, hair, neck
    normals_outer: Array  # [S, O, 3]
    color_outer: Array | None  # [S, O, 3]
    points_off: Array  # [S, F, 3] posed, near the surface but not on it
    color_off: Array | None  # [S, F, 3] of the nearest surface
    points_far: Array  # [S, R, 3] posed, anywhere in the unit ball
    anchors: Array  # [S, n, 3] canonical
    corresp_posed: Array  # [S, C, 3]
    corresp_neutral: Array  # [S, C, 3] the same skin in the neutral scan
    is_neutral: Array  # [S] bool or {0, 1}: the scan has no expression
    has_hair: Array  # [S] the outer points are to be trusted
    has_anchors: Array  # [S] `anchors` are known
    has_corresp: Array  # [S] `corresp_*` are known


class FieldLossWeights(NamedTuple):
    """Weight of each loss, by its official name; the defaults are the official ones."""

    surf_sdf: float = 1.0
    normals: float = 0.3
    eikonal: float = 0.15
    space_sdf: float = 0.01
    color: float = 1.0
    anchors: float = 7.5
    corresp: float = 1000.0
    loss_reg_zero: float = 0.0025
    loss_neutral_zero: float = 0.001
    hyper: float = 0.05
    reg_shape: float = 0.01
    reg_expr: float = 0.05
    reg_app: float = 0.005
    symm_dist: float = 0.01
    symm_dist_app: float = 1e-4
    middle_dist: float = 0.0
    middle_dist_app: float = 0.0


def corresp_factor(epoch: jax.Array | int) -> jax.Array:
    """What `corresp` is multiplied by: 1, 0.25 after epoch 750, 0 from 3000 on."""
    return jnp.where(epoch >= 3000, 0.0, jnp.where(epoch > 750, 0.25, 1.0))


def total_loss(
    losses: dict[str, jax.Array],
    weights: FieldLossWeights = FieldLossWeights(),  # noqa: B008 - immutable
    epoch: jax.Array | int = 0,
) -> jax.Array:
    """Weighted sum of the losses at an epoch: []."""
    weights = weights._replace(corresp=weights.corresp * corresp_factor(epoch))
    return jnp.asarray(
        sum(getattr(weights, name) * value for name, value in losses.items())
    )


def training_losses(
    params: Params,
    cfg: NPHMConfig,
    batch: ScanBatch,
    codes: Codes,
    random_points: Array,
    *,
    method: EnsembleMethod = "blocks",
) -> dict[str, jax.Array]:
    """All losses of a batch, not weighted, by their official names.

    Args:
      params: see `model.init_params`.
      cfg: sizes.
      batch: S scans.
      codes: of the S scans, each field [S, ...].
      random_points: [S, RANDOM_POINTS, 3], uniform within RANDOM_BOX.
      method: how the local ensemble is evaluated, see `field`.

    Returns:
      Scalars; a mean over nothing is zero. There is no `color` without colours or a
      colour network, no `hyper` without hyper coordinates, and no `*_dist` without
      local codes to compare.
    """
    anchors = predict_anchors(params, cfg, codes.geo)
    with_color = cfg.has_color and batch.color_surface is not None

    # One evaluation for all points that need the field, and its gradient, which each of
    # them does; what only moves is moved by itself.
    kinds = [batch.points_surface, batch.points_outer, batch.points_off]
    sizes = [points.shape[1] for points in kinds]
    points = jnp.concatenate([*kinds, batch.points_far], axis=1)
    moved = jnp.concatenate([batch.corresp_posed, random_points], axis=1)

    def total_distance(x: jax.Array) -> tuple[jax.Array, tuple[Field, jax.Array]]:
        queries = deform(params, cfg, x, codes, anchors)
        field = canonical_field(
            params,
            cfg,
            queries,
            codes,
            anchors,
            method=method,
            with_color=with_color,
        )
        return jnp.sum(field.sdf), (field, queries)

    gradient, (field, queries) = jax.grad(total_distance, has_aux=True)(points)
    moved_queries = deform(params, cfg, moved, codes, anchors)
    ends = [sum(sizes[: i + 1]) for i in range(3)]

    def by_kind(values: jax.Array) -> list[jax.Array]:
        return jnp.split(values, ends, axis=1)

    num_corresp = batch.corresp_posed.shape[1]
    corresp, random = jnp.split(moved_queries, [num_corresp], axis=1)
    losses = _geometry_losses(batch, by_kind(field.sdf), by_kind(gradient))
    losses |= _deformation_losses(
        batch,
        cfg,
        by_kind(queries - jnp.pad(points, ((0, 0), (0, 0), (0, cfg.num_hyper)))),
        random - jnp.pad(random_points, ((0, 0), (0, 0), (0, cfg.num_hyper))),
    )
    neutral_error = jnp.mean((corresp[..., :3] - batch.corresp_neutral) ** 2, axis=-1)
    losses["corresp"] = _mean((neutral_error, batch.has_corresp))
    anchor_error = jnp.mean((anchors - batch.anchors) ** 2, axis=-1)
    losses["anchors"] = _mean((anchor_error, batch.has_anchors))
    if with_color:
        losses["color"] = _color_loss(batch, by_kind(field.color))
    return losses | _code_losses(codes, cfg)


def _mean(*parts: tuple[jax.Array, Array]) -> jax.Array:
    """Mean of the values [S, P] of several parts, of the scans that flags [S] name."""
    total, count = 0.0, 0.0
    for values, flags in parts:
        included = jnp.broadcast_to(jnp.asarray(flags)[:, None] > 0, values.shape)
        total += jnp.sum(jnp.where(included, values, 0.0))
        count += jnp.sum(included)
    return total / jnp.maximum(count, 1)


def _everywhere(flags: Array) -> jax.Array:
    return jnp.ones(flags.shape, bool)


def _if_any(flags: Array) -> jax.Array:
    return jnp.broadcast_to(jnp.any(jnp.asarray(flags) > 0), flags.shape)


def _geometry_losses(
    batch: ScanBatch, sdf: list[jax.Array], gradient: list[jax.Array]
) -> dict[str, jax.Array]:
    """Distances and normals; both lists are surface, outer, off, far."""
    every = _everywhere(batch.has_hair)
    surface, outer, _, far = sdf
    surface_error = safe_norm(gradient[0] - batch.normals_surface)
    outer_error = safe_norm(gradient[1] - batch.normals_outer)
    outer_error = jnp.minimum(outer_error, _MAX_OUTER_NORMAL_ERROR)
    return {
        # As soon as one scan's outer points are trusted, those of all scans count.
        "surf_sdf": _mean(
            (jnp.abs(surface), every), (jnp.abs(outer), _if_any(batch.has_hair))
        ),
        "normals": _mean(
            (surface_error, every),
            (_OUTER_NORMAL_WEIGHT * outer_error, batch.has_hair),
        ),
        "eikonal": _mean(*((jnp.abs(safe_norm(g) - 1), every) for g in gradient)),
        "space_sdf": _mean((jnp.exp(-_FAR_SHARPNESS * jnp.abs(far)), every)),
    }


def _color_loss(batch: ScanBatch, color: list[jax.Array]) -> jax.Array:
    every = _everywhere(batch.has_hair)
    surface, outer, off, _ = color

    def error(values: jax.Array, targets: Array | None) -> jax.Array:
        if targets is None:
            raise ValueError("scans have colours of some points, and none of others")
        return jnp.mean(jnp.abs(values - targets), axis=-1)

    return _mean(
        (error(surface, batch.color_surface), every),
        (error(outer, batch.color_outer), every),
        (_OFF_COLOR_WEIGHT * error(off, batch.color_off), batch.has_hair),
    )


def _deformation_losses(
    batch: ScanBatch, cfg: NPHMConfig, motion: list[jax.Array], random: jax.Array
) -> dict[str, jax.Array]:
    """Small deformations.

    Args:
      motion: [S, P, D] offset and hyper coordinates of surface, outer, off and far.
      random: [S, 50, D] the same at random points.
    """
    every, any_neutral = _everywhere(batch.is_neutral), _if_any(batch.is_neutral)
    surface, outer, off, far = motion

    def squared(values: jax.Array) -> jax.Array:
        return jnp.mean(values[..., :3] ** 2, axis=-1)

    def hyper(values: jax.Array) -> jax.Array:
        return jnp.mean(jnp.abs(values[..., 3:]), axis=-1)

    def at_rest(measure) -> jax.Array:
        # The surface of neutral scans; with one of them, what is not the face of any.
        return _mean(
            (measure(surface), batch.is_neutral),
            (measure(outer), any_neutral),
            (measure(off), any_neutral),
        )

    losses = {
        "loss_reg_zero": _mean((squared(random), every)),
        "loss_neutral_zero": at_rest(squared),
    }
    if cfg.num_hyper:
        anywhere = _mean(*((hyper(m), every) for m in (surface, far, random)))
        losses["hyper"] = anywhere + _REST_HYPER_WEIGHT * at_rest(hyper)
    return losses


def _code_losses(codes: Codes, cfg: NPHMConfig) -> dict[str, jax.Array]:
    """Small codes, and a face that resembles its mirror image."""

    def squared(code: Array) -> jax.Array:
        return jnp.mean(jnp.sum(code**2, axis=-1))

    losses = {"reg_shape": squared(codes.geo), "reg_expr": squared(codes.exp)}
    if cfg.has_color:
        losses["reg_app"] = squared(codes.app)
    measures = {}
    if cfg.num_symm_pairs > 0:
        measures["symm_dist"] = pair_distance
    if cfg.num_anchors - 2 * cfg.num_symm_pairs > 1:
        measures["middle_dist"] = middle_distance
    for name, measure in measures.items():
        losses[name] = measure(codes.geo, cfg)
        if cfg.has_color:
            losses[f"{name}_app"] = measure(codes.app, cfg)
    return losses
