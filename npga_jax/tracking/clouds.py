"""Point clouds of a capture, made ready for a fit: which points are skin.

A head model has no hair, torso or inside of the mouth. Where the capture has label
maps, each point asks the cameras that see it what it is.
"""

from typing import NamedTuple

import numpy as np

from npga_jax.data import Capture, Timestep, segmentation, vote_labels

NOT_SKIN = (
    segmentation.BACKGROUND,
    segmentation.NECK,
    segmentation.TORSO,
    segmentation.INNER_MOUTH,
    segmentation.HAIR,
    segmentation.OUTSIDE_FACE_BOX,
)
"""Labels whose points are left out. Neck and torso share a label in many captures."""


class SkinPoints(NamedTuple):
    """Points of one frame that a head model can explain."""

    xyz: np.ndarray  # [P, 3] float32 world, metres
    normals: np.ndarray  # [P, 3] float32 world; zero where unknown
    rgb: np.ndarray  # [P, 3] float32 in [0, 1]


def skin_points(capture: Capture, timestep: Timestep) -> SkinPoints | None:
    """The points of a frame to fit, or None if the frame has no cloud.

    Points that no camera sees are left out too, where there are label maps.
    """
    cloud = capture.points(timestep)
    if cloud is None:
        return None
    normals = cloud.normals
    if normals is None:
        normals = np.zeros_like(cloud.xyz)
    keep = np.ones(len(cloud.xyz), bool)
    labels = vote_labels(capture, timestep, cloud)
    if labels is not None:
        keep = (labels >= 0) & ~np.isin(labels, NOT_SKIN)
    return SkinPoints(cloud.xyz[keep], normals[keep], cloud.rgb[keep])


def drawn(points: SkinPoints, count: int, rng: np.random.Generator) -> SkinPoints:
    """At most `count` of the points, without repetition, in arrays of their own."""
    if len(points.xyz) <= count:
        return points
    chosen = rng.choice(len(points.xyz), count, replace=False)
    return SkinPoints(*(array[chosen] for array in points))


def padded(arrays: tuple[np.ndarray, ...], count: int) -> tuple[np.ndarray, ...]:
    """Fills arrays up to one length.

    Args:
      arrays: [P, ...] each, P at most `count`.
      count: the length.

    Returns:
      The arrays [count, ...] float32, and weights [count], 0 for padding.
    """
    known = len(arrays[0])
    pad = count - known
    weights = np.concatenate([np.ones(known), np.zeros(pad)])
    wide = (np.pad(a, ((0, pad), (0, 0))) for a in arrays)
    return tuple(a.astype(np.float32) for a in (*wide, weights))
