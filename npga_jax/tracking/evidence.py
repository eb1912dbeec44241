"""What a capture says of its heads beside clouds, once these have been fitted."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.core import neutral_first
from npga_jax.nphm import MILLIMETRES_PER_UNIT, TRACKING_BOX, HeadModel
from npga_jax.tracking.appearance import color_term, make_texture
from npga_jax.tracking.equations import Observations, Unknowns
from npga_jax.tracking.gathering import Frame
from npga_jax.tracking.landmark_term import (
    ModelLandmarks,
    Sightings,
    landmark_term,
    model_landmarks,
    packaged_table,
    place_landmarks,
)
from npga_jax.tracking.options import TrackingOptions
from npga_jax.tracking.residuals import apply_pose
from npga_jax.tracking.terms import Head, Term, canonical_places, condition_of

_MOST_SPREAD = 4.0 / MILLIMETRES_PER_UNIT
"""Landmarks that keep less well to their place say nothing: outlines of cheeks."""


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
