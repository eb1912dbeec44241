"""Point clouds of a capture, made ready for a fit: which points are skin.

A head model has no hair, torso or inside of the mouth. Where the capture has label
maps, each point asks the cameras that see it what it is.
"""

from typing import NamedTuple

import numpy as np

from npga_jax.data import segmentation
from npga_jax.data.capture import Camera, Capture, PointCloud, Timestep

NOT_SKIN = (
    segmentation.BACKGROUND,
    segmentation.NECK,
    segmentation.TORSO,
    segmentation.INNER_MOUTH,
    segmentation.HAIR,
    segmentation.OUTSIDE_FACE_BOX,
)
"""Labels whose points are left out. Neck and torso share a label in many captures."""

_CELL_PIXELS = 12.0
_BEHIND_METRES = 0.02
_MIN_FACING = 0.25
_NUM_LABELS = 32


class SkinPoints(NamedTuple):
    """Points of one frame that a head model can explain."""

    xyz: np.ndarray  # [P, 3] float32 world, metres
    normals: np.ndarray  # [P, 3] float32 world; zero where unknown
    rgb: np.ndarray  # [P, 3] float32 in [0, 1]


def project(camera: Camera, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World points [P, 3] in an image: pixels [P, 2] and depths [P] in metres."""
    seen = points @ camera.world2cam[:3, :3].T + camera.world2cam[:3, 3]
    depth = np.maximum(seen[:, 2], 1e-6)
    pixels = seen @ camera.K.T
    return pixels[:, :2] / depth[:, None], seen[:, 2]


def visible_points(
    camera: Camera, points: np.ndarray, normals: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Which points a camera sees, as far as the cloud itself can tell.

    A point is hidden if it turns away, or if another point of its neighbourhood in the
    image is clearly nearer.

    Returns:
      Visible [P] bool; pixels [P, 2] int, inside the image where visible.
    """
    pixels, depth = project(camera, points)
    inside = (pixels >= 0).all(1) & (pixels < [camera.width, camera.height]).all(1)
    visible = inside & (depth > 0)
    centre = -camera.world2cam[:3, :3].T @ camera.world2cam[:3, 3]
    if normals is not None:
        ray = centre - points
        ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
        known = (normals**2).sum(-1) > 0.25
        visible &= ~known | ((normals * ray).sum(-1) > _MIN_FACING)
    columns = int(camera.width // _CELL_PIXELS) + 1
    cell = (pixels // _CELL_PIXELS).astype(np.int64)
    cell = np.where(inside, cell[:, 1] * columns + cell[:, 0], 0)
    rows = int(camera.height // _CELL_PIXELS) + 1
    nearest = np.full(rows * columns, np.inf)
    front = inside & (depth > 0)
    np.minimum.at(nearest, cell[front], depth[front])
    visible &= depth < nearest[cell] + _BEHIND_METRES
    return visible, np.where(inside[:, None], pixels, 0).astype(np.int64)


def vote_labels(
    capture: Capture, timestep: Timestep, cloud: PointCloud
) -> np.ndarray | None:
    """The label that most cameras give each point, -1 where none sees it.

    Returns:
      [P] int, or None if the capture has no label maps of this timestep.
    """
    votes = np.zeros((len(cloud.xyz), _NUM_LABELS), np.int32)
    has_maps = False
    for camera_id in capture.cameras:
        labels = capture.labels(timestep, camera_id)
        if labels is None:
            continue
        has_maps = True
        camera = capture.camera(timestep, camera_id)
        visible, pixels = visible_points(camera, cloud.xyz, cloud.normals)
        scale = np.array(labels.shape[::-1]) / [camera.width, camera.height]
        pixel = (pixels[visible] * scale).astype(int)
        label = np.minimum(labels[pixel[:, 1], pixel[:, 0]], _NUM_LABELS - 1)
        np.add.at(votes, (np.flatnonzero(visible), label), 1)
    if not has_maps:
        return None
    return np.where(votes.sum(1) > 0, votes.argmax(1), -1)


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
