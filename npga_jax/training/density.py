"""Density control on fixed shapes: where Gaussians are added, and which are dropped.

Slots are preallocated; `alive` says which are in use. Everything here is jitted once
and never changes a shape. Statistics are not gathered during training: before an event
a few views, spread over the expressions, are rendered and differentiated once more.

Sources: 3D Gaussian splatting (clone, split, prune); Rota Bulo et al. 2024 (errors of
the pixels that a Gaussian contributes to, opacities of copies); Kheradmand et al. 2024
(3DGS-MCMC: relocation of the faint).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from npga_jax.core import Gaussians, Splats, logit, quat_to_rotmat, safe_normalize

_FAINT = 1e-6


class ViewStats(NamedTuple):
    """What some views say about every Gaussian; arrays [N]."""

    gradient_sum: jax.Array  # of the lengths of the loss gradient, per pixel of motion
    gradient_peak: jax.Array
    error_sum: jax.Array  # of the absolute errors that it has a share in
    error_peak: jax.Array
    opacity_peak: jax.Array  # over expressions: teeth are seen in few


class DensityOptions(NamedTuple):
    """How the cloud changes at an event; `DensityConfig` has the defaults."""

    growth: float  # new Gaussians, as a share of the capacity
    peak_weight: float  # share of the largest value over views in a score
    error_weight: float  # share of the pixel errors in it
    prune_opacity: float = 0.01
    prune_scale: float = 0.02  # metres
    split_scale: float = 1e-3
    """Metres: larger Gaussians are split along their longest axis, others cloned."""


class DensityReport(NamedTuple):
    """What an event did; all []."""

    added: jax.Array
    dropped: jax.Array
    wanted: jax.Array  # that found no free slot


def empty_stats(count: int) -> ViewStats:
    """Statistics before the first view."""
    zeros = jnp.zeros(count)
    return ViewStats(zeros, zeros, zeros, zeros, zeros)


def view_stats(
    stats: ViewStats,
    splats: Splats,
    gradient: jax.Array,  # [N, 3] of the loss, by posed centres
    error: jax.Array,  # [N] sum over pixels of its weight times the absolute error
    viewmat: jax.Array,  # [4, 4] head-to-camera
    K: jax.Array,  # [3, 3]
) -> ViewStats:
    """Adds one view."""
    in_camera = gradient @ viewmat[:3, :3].T
    depth = splats.means @ viewmat[2, :3] + viewmat[2, 3]
    per_pixel = jnp.linalg.norm(in_camera[:, :2], axis=-1) * depth / K[0, 0]
    return ViewStats(
        stats.gradient_sum + per_pixel,
        jnp.maximum(stats.gradient_peak, per_pixel),
        stats.error_sum + error,
        jnp.maximum(stats.error_peak, error),
        jnp.maximum(stats.opacity_peak, splats.opacities),
    )


def growth_score(stats: ViewStats, alive: jax.Array, options: DensityOptions):
    """How much a Gaussian should be refined, [N]; each part relative to its mean."""

    def relative(values):
        values = jnp.where(alive, jnp.nan_to_num(values), 0.0)
        return values * jnp.sum(alive) / jnp.maximum(jnp.sum(values), _FAINT**2)

    def mixed(total, peak):
        share = options.peak_weight
        return (1.0 - share) * relative(total) + share * relative(peak)

    score = (1.0 - options.error_weight) * mixed(
        stats.gradient_sum, stats.gradient_peak
    ) + options.error_weight * mixed(stats.error_sum, stats.error_peak)
    return jnp.where(alive, score, -1.0)


def _halves(gaussians: Gaussians, rows: jax.Array, split_scale: float):
    """Two Gaussians in the place of one: both keep its look together."""
    parents = jax.tree.map(lambda x: x[rows], gaussians)
    scales = jnp.exp(parents.log_scales)
    longest = jax.nn.one_hot(jnp.argmax(scales, axis=-1), 3)
    length = jnp.max(scales, axis=-1)
    axes = quat_to_rotmat(safe_normalize(parents.quats))
    direction = jnp.einsum("nij,nj->ni", axes, longest)
    is_split = length > split_scale
    # Along the longest axis; halves of half the length, half a length from the middle.
    offset = jnp.where(is_split, 0.5, 0.1)[:, None] * length[:, None] * direction
    shrink = jnp.where(is_split[:, None], longest * jnp.log(0.5), 0.0)
    opacity = jax.nn.sigmoid(parents.logit_opacities)
    # A split half has the ground to itself; clones share one: 1 - (1 - a)^2 = opacity.
    shared = 1.0 - jnp.sqrt(jnp.clip(1.0 - opacity, _FAINT, 1.0))
    opacity = jnp.clip(jnp.where(is_split, opacity, shared), _FAINT, 1 - _FAINT)
    parents = parents._replace(
        log_scales=parents.log_scales + shrink, logit_opacities=logit(opacity)
    )
    return (
        parents._replace(means=parents.means - offset),
        parents._replace(means=parents.means + offset),
    )


def _write(tree, rows: jax.Array, values, valid: jax.Array):
    """Replaces rows where valid."""
    target = jnp.where(valid, rows, jax.tree.leaves(tree)[0].shape[0])
    return jax.tree.map(lambda x, v: x.at[target].set(v, mode="drop"), tree, values)


def adaptive(
    gaussians: Gaussians,
    moments: tuple[Gaussians, ...],
    alive: jax.Array,
    stats: ViewStats,
    key: jax.Array,
    *,
    options: DensityOptions,
) -> tuple[Gaussians, tuple[Gaussians, ...], jax.Array, DensityReport]:
    """One event: drops what is not seen, and refines what is wrong.

    Opacities are never reset. The faint and the huge are dropped, and the Gaussians of
    the highest score are split or cloned.

    Args:
      gaussians: [N] canonical.
      moments: of the optimiser, in the shape of `gaussians`; those of changed rows are
        set to zero.
      alive: [N].
      stats: of some views.
      key: not used.

    Returns:
      The same, changed, and what was done.
    """
    del key
    kept = alive & ~_useless(gaussians, stats, options)
    score = growth_score(stats, kept, options)
    num_new = max(1, int(options.growth * alive.shape[0]))
    return _replace(gaussians, moments, alive, kept, score, num_new, options)


def relocate(
    gaussians: Gaussians,
    moments: tuple[Gaussians, ...],
    alive: jax.Array,
    stats: ViewStats,
    key: jax.Array,
    *,
    options: DensityOptions,
) -> tuple[Gaussians, tuple[Gaussians, ...], jax.Array, DensityReport]:
    """One event of 3DGS-MCMC: the faint move to where opacity is, and more are added.

    Args and returns are those of `adaptive`; places are drawn in proportion to opacity.
    """
    capacity = alive.shape[0]
    kept = alive & ~_useless(gaussians, stats, options)
    opacity = jax.nn.sigmoid(gaussians.logit_opacities)
    # Gumbel's trick: drawn without replacement, in proportion to opacity.
    score = jnp.log(opacity) + jax.random.gumbel(key, (capacity,))
    score = jnp.where(kept, score, -jnp.inf)
    num_new = min(capacity, 2 * max(1, int(options.growth * capacity)))
    return _replace(gaussians, moments, alive, kept, score, num_new, options)


def _useless(
    gaussians: Gaussians, stats: ViewStats, options: DensityOptions
) -> jax.Array:
    scales = jnp.exp(jnp.max(gaussians.log_scales, axis=-1))
    return (stats.opacity_peak < options.prune_opacity) | (scales > options.prune_scale)


def _replace(
    gaussians: Gaussians,
    moments: tuple[Gaussians, ...],
    alive: jax.Array,
    kept: jax.Array,
    score: jax.Array,  # [N] the highest are refined; -inf and what is not kept never
    num_new: int,
    options: DensityOptions,
) -> tuple[Gaussians, tuple[Gaussians, ...], jax.Array, DensityReport]:
    """Two in the place of each of the `num_new` with the highest score."""
    best, parents = jax.lax.top_k(score, num_new)
    free = jnp.argsort(kept, stable=True)[:num_new]  # Dead slots come first.
    is_free = ~kept[free]
    is_parent = kept[parents] & jnp.isfinite(best)
    valid = is_free & is_parent
    first, second = _halves(gaussians, parents, options.split_scale)
    gaussians = _write(gaussians, parents, first, valid)
    gaussians = _write(gaussians, free, second, valid)
    zeros = jax.tree.map(jnp.zeros_like, first)
    moments = tuple(
        _write(_write(m, parents, zeros, valid), free, zeros, valid) for m in moments
    )
    target = jnp.where(valid, free, alive.shape[0])
    now_alive = kept.at[target].set(True, mode="drop")
    report = DensityReport(
        added=jnp.sum(valid),
        dropped=jnp.sum(alive & ~kept),
        wanted=jnp.sum(is_parent & ~is_free),
    )
    return gaussians, moments, now_alive, report


def explore(
    gaussians: Gaussians, alive: jax.Array, key: jax.Array, *, rate: jax.Array | float
) -> Gaussians:
    """The fainter a Gaussian, the more its centre wanders, within its own ellipsoid.

    After 3DGS-MCMC, whose noise is Sigma eta; this one is R S eta, in standard
    deviations, so that thin Gaussians stay on the surface and small ones do not freeze.

    Args:
      rate: of centres, standard deviations a step.
    """
    opacity = jax.nn.sigmoid(gaussians.logit_opacities)
    wander = jax.nn.sigmoid(-100.0 * (opacity - 0.005)) * alive
    axes = quat_to_rotmat(safe_normalize(gaussians.quats))
    noise = jax.random.normal(key, gaussians.means.shape)
    noise = jnp.einsum(
        "nij,nj->ni",
        axes,
        jnp.exp(gaussians.log_scales) * noise,
        precision=jax.lax.Precision.HIGHEST,
    )
    return gaussians._replace(means=gaussians.means + rate * wander[:, None] * noise)
