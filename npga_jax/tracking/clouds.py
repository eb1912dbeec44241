"""Point clouds of a capture, made ready for a fit: which points are skin.

A head model has no hair, torso or inside of the mouth. Where the capture has label
maps, each point asks the cameras that see it what it is. Where it has none, points are
taken that lie about the face of the mean head, once it is placed.
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from npga_jax.data import Capture, Timestep, segmentation, vote_labels
from npga_jax.tracking.alignment import Similarity
from npga_jax.tracking.template import HeadTemplate

NOT_SKIN = (
    segmentation.BACKGROUND,
    segmentation.NECK,
    segmentation.TORSO,
    segmentation.INNER_MOUTH,
    segmentation.HAIR,
    segmentation.OUTSIDE_FACE_BOX,
)
"""Labels whose points are left out. Neck and torso share a label in many captures."""


_ABOUT = 0.12
"""NPHM units between a face and the mean head's that is placed on it: a chin may be
far down."""


class SkinPoints(NamedTuple):
    """Points of one frame that a head model can explain."""

    xyz: np.ndarray  # [P, 3] float32 world, metres
    normals: np.ndarray  # [P, 3] float32 world; zero where unknown
    rgb: np.ndarray  # [P, 3] float32 in [0, 1]
    is_labelled: bool  # Whether label maps say so; else hair is among them.


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
    labels = vote_labels(capture, timestep, cloud)
    if labels is None:
        return SkinPoints(cloud.xyz, normals, cloud.rgb, False)
    keep = (labels >= 0) & ~np.isin(labels, NOT_SKIN)
    return SkinPoints(cloud.xyz[keep], normals[keep], cloud.rgb[keep], True)


class FaceRegion:
    """Where the mean head has its face: tells points of faces from those around."""

    def __init__(self, template: HeadTemplate):
        """Takes the template's faces apart by their labels."""
        self._tree = KDTree(template.vertices)
        self._is_face = np.zeros(len(template.vertices), bool)
        self._is_face[template.faces[template.labels == segmentation.FACE]] = True
        others = template.faces[template.labels != segmentation.FACE]
        self._is_face[others] = False

    def of(self, points: SkinPoints, pose: Similarity) -> SkinPoints:
        """Those points whose nearest place on the placed mean head is of its face."""
        distance, near = self._tree.query(pose.to_head(points.xyz), workers=-1)
        keep = self._is_face[near] & (distance < _ABOUT)
        return points._replace(
            xyz=points.xyz[keep], normals=points.normals[keep], rgb=points.rgb[keep]
        )


def drawn(points: SkinPoints, count: int, rng: np.random.Generator) -> SkinPoints:
    """At most `count` of the points, without repetition, in arrays of their own."""
    if len(points.xyz) <= count:
        return points
    chosen = rng.choice(len(points.xyz), count, replace=False)
    return points._replace(
        xyz=points.xyz[chosen], normals=points.normals[chosen], rgb=points.rgb[chosen]
    )


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
