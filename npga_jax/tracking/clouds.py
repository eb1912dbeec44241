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


def fixed_size(
    arrays: tuple[np.ndarray, ...], count: int, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """Draws or pads to `count` points.

    Args:
      arrays: [P, ...] each.

    Returns:
      The arrays [count, ...] float32, and weights [count], 0 for padding.
    """
    chosen = np.arange(len(arrays[0]))
    if len(chosen) > count:
        chosen = rng.choice(len(chosen), count, replace=False)
    pad = count - len(chosen)
    weights = np.concatenate([np.ones(len(chosen)), np.zeros(pad)])
    padded = (np.pad(a[chosen], ((0, pad), (0, 0))) for a in arrays)
    return tuple(a.astype(np.float32) for a in (*padded, weights))
