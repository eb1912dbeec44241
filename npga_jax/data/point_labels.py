"""What points of a cloud are, by the label maps of the cameras that see them."""

from collections.abc import Sequence

import numpy as np

from npga_jax.data.capture import Camera, Capture, PointCloud, Timestep

_CELL_PIXELS = 12.0
_BEHIND_METRES = 0.02
_MIN_FACING = 0.25
_NUM_LABELS = 32


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
        unknown = (normals**2).sum(-1) <= 0.25
        visible &= unknown | ((normals * ray).sum(-1) > _MIN_FACING)
    columns = int(camera.width // _CELL_PIXELS) + 1
    cell = (pixels // _CELL_PIXELS).astype(np.int64)
    cell = np.where(inside, cell[:, 1] * columns + cell[:, 0], 0)
    rows = int(camera.height // _CELL_PIXELS) + 1
    nearest = np.full(rows * columns, np.inf)
    front = inside & (depth > 0)
    np.minimum.at(nearest, cell[front], depth[front])
    visible = visible & (depth < nearest[cell] + _BEHIND_METRES)
    return visible, np.where(np.asarray(inside)[:, None], pixels, 0).astype(np.int64)


def vote_labels(
    capture: Capture,
    timestep: Timestep,
    cloud: PointCloud,
    cameras: Sequence[str] | None = None,
) -> np.ndarray | None:
    """The label that most cameras give each point, -1 where none sees it.

    Args:
      cameras: which are asked; None for all.

    Returns:
      [P] int, or None if the capture has no label maps of this timestep.
    """
    votes = np.zeros((len(cloud.xyz), _NUM_LABELS), np.int32)
    has_maps = False
    for camera_id in capture.cameras if cameras is None else cameras:
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
