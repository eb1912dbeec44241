"""What is seen inside the mouth: whether the skull or the jaw carries it.

Only few frames show teeth, and each shows a few points of them. So the points of all
frames are taken together, and the frames tell each other what moves with what.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from npga_jax.avatar import JAW, NUM_CHIN, SKULL
from npga_jax.data import FACE, INNER_MOUTH, Capture, Timestep, vote_labels
from npga_jax.training.initial_points import (
    InitialPoints,
    as_initial,
    choose_rows,
    to_head_frame,
)

_SUPPORT_RADIUS = 2e-3
"""Metres between points of two frames that are taken for one place."""
_SUPPORT_COLOR = 0.15
"""Difference of their colours, each in [0, 1]."""
_CHIN_BOX = ((-0.020, -0.045, -0.030), (0.020, -0.015, 0.030))
"""Metres from the line where the lips meet: skin that is close to the bone."""


class MouthPoints(NamedTuple):
    """Points of some frames that are inside the mouth, as posed."""

    means: np.ndarray  # [P, 3] head frame, metres
    rgb: np.ndarray  # [P, 3] in [0, 1]
    rows: np.ndarray  # [P] which of the frames


def labelled_rows(
    capture: Capture, timestep: Timestep, label: int, cameras: Sequence[str]
) -> np.ndarray:
    """Which points of a frame's cloud have a label; none without a cloud or maps."""
    cloud = capture.points(timestep)
    labels = None if cloud is None else vote_labels(capture, timestep, cloud, cameras)
    if labels is None:
        return np.zeros(0, int)
    return np.flatnonzero(labels == label)


def take_points(
    capture: Capture, timestep: Timestep, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Some points of a frame, in the head frame [P, 3], and their colours [P, 3]."""
    cloud = capture.points(timestep) if len(rows) else None
    if cloud is None:
        return np.zeros((0, 3)), np.zeros((0, 3))
    points = to_head_frame(cloud, capture.driving(timestep).world_from_head)
    return points[rows], cloud.rgb[rows]


def mouth_points(
    capture: Capture,
    timesteps: Sequence[Timestep],
    *,
    cameras: Sequence[str],
    max_points: int,
    seed: int,
) -> MouthPoints:
    """Points inside the mouth; none where there are no label maps.

    One cloud and its maps are held at a time; those whose points are chosen are read
    once more.

    Args:
      capture: with clouds.
      timesteps: those to look at.
      seed: of the draw.
      cameras: whose label maps count.
      max_points: at most this many are kept, drawn at random.
    """
    rows = [labelled_rows(capture, t, INNER_MOUTH, cameras) for t in timesteps]
    chosen = choose_rows([len(own) for own in rows], max_points, seed)
    found = [
        take_points(capture, t, own[drawn])
        for t, own, drawn in zip(timesteps, rows, chosen, strict=True)
    ]
    points, rgb = zip(*found, strict=True)
    frames = np.repeat(np.arange(len(found)), [len(drawn) for drawn in chosen])
    return MouthPoints(np.concatenate(points), np.concatenate(rgb), frames)


def chin_points(
    skin: np.ndarray, mouth: MouthPoints, *, seed: int
) -> np.ndarray | None:
    """Canonical points of the chin: [NUM_CHIN, 3], or None if there are too few.

    Args:
      skin: [P, 3] canonical.
      mouth: at least one point.
    """
    x, y, z = mouth.means.T
    lips = np.array([np.median(x), np.quantile(y, 0.8), np.quantile(z, 0.9)])
    low, high = lips + np.array(_CHIN_BOX)
    chin = skin[((skin > low) & (skin < high)).all(axis=-1)]
    if len(chin) < NUM_CHIN:
        return None
    rng = np.random.default_rng(seed)
    return chin[np.sort(rng.choice(len(chin), NUM_CHIN, replace=False))]


def _support(points: np.ndarray, mouth: MouthPoints) -> np.ndarray:
    """How many other frames have a point at each one's place, in its colour: [P]."""
    count = np.zeros(len(points), int)
    for i, near in enumerate(KDTree(points).query_ball_point(points, _SUPPORT_RADIUS)):
        alike = np.abs(mouth.rgb[near] - mouth.rgb[i]).max(axis=-1) < _SUPPORT_COLOR
        count[i] = len(np.unique(mouth.rows[near][alike])) - 1
    return count


def bind_mouth(
    mouth: MouthPoints,
    rotations: np.ndarray,  # [T, 3, 3] of the jaw
    translations: np.ndarray,  # [T, 3]
) -> InitialPoints:
    """Where the points of mouths are at rest, and what carries them.

    A point belongs to the bone in whose frame more of the other frames show something
    of its colour at its place; to the skull if there is no difference.
    """
    offset = mouth.means - translations[mouth.rows]
    at_rest = np.einsum("pi,pij->pj", offset, rotations[mouth.rows])
    by_skull, by_jaw = _support(mouth.means, mouth), _support(at_rest, mouth)
    is_jaw = by_jaw > by_skull
    bindings = np.zeros((len(is_jaw), 2))
    bindings[~is_jaw, SKULL] = bindings[is_jaw, JAW] = 1.0
    means = np.where(is_jaw[:, None], at_rest, mouth.means)
    return as_initial(means, mouth.rgb, np.zeros((len(means), 0)), bindings)


def canonical_skin(
    capture: Capture,
    timesteps: Sequence[Timestep],
    to_canonical: Callable,
    *,
    cameras: Sequence[str],
) -> np.ndarray:
    """Skin of some frames, [P, 3]."""
    found = []
    for timestep in timesteps:
        rows = labelled_rows(capture, timestep, FACE, cameras)
        points, _ = take_points(capture, timestep, rows)
        found.append(to_canonical(points, capture.driving(timestep).expr)[0])
    return np.concatenate(found)
