"""What a capture says of its heads beside clouds, once these have been fitted."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.core import neutral_first
from npga_jax.data import Capture, segmentation
from npga_jax.nphm import MILLIMETRES_PER_UNIT, TRACKING_BOX, HeadModel
from npga_jax.tracking.alignment import refined
from npga_jax.tracking.appearance import color_term, make_texture
from npga_jax.tracking.clouds import padded
from npga_jax.tracking.equations import Observations, Unknowns
from npga_jax.tracking.eye_pixels import MOST_PIXELS, eye_pixels
from npga_jax.tracking.gathering import Frame
from npga_jax.tracking.landmark_term import (
    ModelLandmarks,
    Sightings,
    landmark_term,
    model_landmarks,
    packaged_table,
    place_landmarks,
)
from npga_jax.tracking.lids import about_openings, find_openings, lid_term
from npga_jax.tracking.options import TrackingOptions
from npga_jax.tracking.residuals import apply_pose, distances, rotation_matrix
from npga_jax.tracking.template import fit_template, packaged_template
from npga_jax.tracking.terms import Head, Term, canonical_places, condition_of

_MOST_SPREAD = 4.0 / MILLIMETRES_PER_UNIT
"""Landmarks that keep less well to their place say nothing: outlines of cheeks."""

_RAY_STEPS, _LONGEST_STEP = 16, 5.0 / MILLIMETRES_PER_UNIT
_MET = 0.3 / MILLIMETRES_PER_UNIT
"""Distance at which a ray has met the surface."""


class ToCanonical:
    """Brings points of tracked frames to canonical space."""

    def __init__(self, model: HeadModel, unknowns: Unknowns):
        """Takes the frames' codes and poses as they are now."""
        self._unknowns = unknowns

        @jax.jit
        def places(points, pose, exp):
            condition = condition_of(model.params, model.cfg, unknowns.geo, exp)
            return canonical_places(model.params, apply_pose(pose, points), condition)

        self._places = places

    def __call__(self, row: int, points: jax.Array) -> np.ndarray:
        """Points [P, 3] of a frame, near the model's frame: [P, 3]."""
        unknowns = self._unknowns
        return np.asarray(
            self._places(jnp.asarray(points), unknowns.pose[row], unknowns.exp[row])
        )


def color_evidence(
    observations: Observations,
    channels: jax.Array,
    to_canonical: ToCanonical,
    neutral: Sequence[int],
    noise: float,
) -> Term:
    """Colours of the most neutral frames, which those of all frames are held to."""
    points, colors = [], []
    for i in neutral:
        known = np.asarray(observations.weights[i]) > 0
        points.append(to_canonical(i, observations.points[i])[known])
        colors.append(np.asarray(channels[i])[known])
    points, colors = np.concatenate(points), np.concatenate(colors)
    # A stray point must not stretch the grid.
    low, high = np.array(TRACKING_BOX)
    inside = ((points > low) & (points < high)).all(axis=-1)
    texture = make_texture(points[inside], colors[inside])
    return color_term(texture, observations.points, channels, noise)


def lid_evidence(
    capture: Capture,
    frames: Sequence[Frame],
    model: HeadModel,
    unknowns: Unknowns,
    neutral: Sequence[int],
    options: TrackingOptions,
) -> Term | None:
    """Where eyes are seen and where skin is; None where no label maps say so."""
    template = packaged_template()
    vertices = fit_template(template, model, np.asarray(unknowns.geo))
    eyes = np.stack(
        [
            vertices[rim].mean(axis=0)
            for rim, label in zip(template.rims, template.rim_labels, strict=True)
            if label in segmentation.EYES
        ]
    )
    rng = np.random.default_rng(options.seed)
    meet = _surface_along(model, unknowns)
    count = (len(frames), MOST_PIXELS)
    points, weights = np.zeros((*count, 3), np.float32), np.zeros(count, np.float32)
    is_eye = np.zeros(count, bool)
    for i, frame in enumerate(frames):
        pose = refined(frame.pose, np.asarray(unknowns.pose[i], np.float64))
        pixels = eye_pixels(capture, frame.timestep, pose, eyes, rng)
        if pixels is None:
            continue
        known = len(pixels.is_eye)
        origins, directions, starts, _ = padded(
            (pixels.origins, pixels.directions, pixels.starts[:, None]), MOST_PIXELS
        )
        met, is_met = meet(unknowns.exp[i], origins, directions, starts[:, 0])
        points[i], is_eye[i, :known] = met, pixels.is_eye
        weights[i, :known] = np.asarray(is_met)[:known]
    # The rays were in the model's frame; terms see what is observed, before the pose.
    points = np.stack(
        [_unposed(p, q) for p, q in zip(points, unknowns.pose, strict=True)]
    )
    to_canonical = ToCanonical(model, unknowns)
    places = [to_canonical(i, own) for i, own in enumerate(points)]
    known = weights > 0
    # A code may look neutral because lids were not followed: open eyes are seen.
    seen = (is_eye & known).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    is_open = (seen >= np.median(seen)) & known.any(axis=1)
    chosen = [i for i in neutral if is_open[i]] or np.flatnonzero(is_open).tolist()
    if not chosen:
        return None
    openings = find_openings(
        np.concatenate([places[i][known[i]] for i in chosen]),
        np.concatenate([is_eye[i][known[i]] for i in chosen]),
    )
    if openings is None:
        return None
    near = [np.asarray(about_openings(openings, jnp.asarray(p))) for p in places]
    noise = options.lid_noise_mm / MILLIMETRES_PER_UNIT
    return lid_term(openings, points, is_eye, weights * np.stack(near), noise)


def _surface_along(model: HeadModel, unknowns: Unknowns):
    """Follows rays to the surface of a head: (exp, origins, directions, starts)."""

    @jax.jit
    def meet(exp, origins, directions, starts):
        def closer(_, along):
            points = origins + along[:, None] * directions
            sdf = distances(model.params, model.cfg, points, unknowns.geo, exp)
            return along + jnp.clip(sdf, -_LONGEST_STEP, _LONGEST_STEP)

        along = jax.lax.fori_loop(0, _RAY_STEPS, closer, starts)
        points = origins + along[:, None] * directions
        sdf = distances(model.params, model.cfg, points, unknowns.geo, exp)
        return points, jnp.abs(sdf) < _MET

    return meet


def _unposed(points: np.ndarray, pose: jax.Array) -> np.ndarray:
    """Points of the model's frame before a pose residual: inverse of `apply_pose`."""
    rotation = np.asarray(rotation_matrix(jnp.asarray(pose[:3])))
    return (points - np.asarray(pose[3:])) @ rotation


def landmark_evidence(
    model: HeadModel,
    frames: Sequence[Frame],
    noise_mm: float,
) -> Term | None:
    """Landmarks that several cameras agree on; None where no frame has any."""
    if all(frame.landmarks is None for frame in frames):
        return None
    table = packaged_table()
    used = np.flatnonzero(table.spread < _MOST_SPREAD)
    points = np.zeros((len(frames), len(used), 3))
    weights = np.zeros((len(frames), len(used)))
    trust = (np.median(table.spread[used]) / table.spread[used]) ** 2
    for i, frame in enumerate(frames):
        if frame.landmarks is None:
            continue
        points[i] = frame.pose.to_head(frame.landmarks.points[used].astype(np.float64))
        weights[i] = trust * (frame.landmarks.agreeing[used] > 0)
    across = np.broadcast_to(np.eye(3), (len(frames), len(used), 3, 3))
    return landmark_term(
        model_landmarks(model, table, used),
        Sightings(points, across, weights),
        noise_mm / MILLIMETRES_PER_UNIT,
    )


def personal_landmarks(
    term: Term, model: HeadModel, unknowns: Unknowns, neutral: Sequence[int]
) -> Term:
    """The same evidence, with landmarks seen where this person's neutral frames say.

    A detector errs alike in all frames of a face: what is off then is not expression.
    """
    points, across, weights = term.frames
    shared: ModelLandmarks = term.shared

    @jax.jit
    def place(pose, exp, points):
        head = Head(unknowns.geo, exp, pose)
        places, valid, _ = place_landmarks(model.params, model.cfg, shared, head)
        return apply_pose(pose, points) - places, valid

    offsets = []
    for i in neutral:
        apart, valid = place(unknowns.pose[i], unknowns.exp[i], points[i])
        is_seen = np.asarray(valid & (weights[i] > 0))
        offsets.append(np.where(is_seen[:, None], np.asarray(apart), np.nan))
    offsets = np.stack(offsets)
    unseen = np.isnan(offsets).all(axis=(0, 2))
    offsets[:, unseen] = 0.0
    shared = shared._replace(offsets=jnp.asarray(np.nanmedian(offsets, axis=0)))
    return dataclasses.replace(
        term, shared=shared, frames=(points, across, weights * ~unseen)
    )


def most_neutral(unknowns: Unknowns, options: TrackingOptions) -> list[int]:
    """Rows of the frames that say what a person looks like at rest."""
    return neutral_first(np.asarray(unknowns.exp))[: options.texture_frames].tolist()
