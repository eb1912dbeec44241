"""Pixels about the eyes whose label maps say what they show: skin, or eye."""

from typing import NamedTuple

import numpy as np

from npga_jax.data import Camera, Capture, Timestep, segmentation
from npga_jax.nphm import METRES_PER_UNIT
from npga_jax.tracking.alignment import Similarity

MOST_PIXELS = 384
"""Of one frame, all cameras together."""
_MOST_CAMERAS = 4
_LEAST_FRONTAL = 0.6
"""Cosine between where a face looks and where a camera is."""
_REACH = 0.016 / METRES_PER_UNIT
"""NPHM units around the middle of an eye."""
_BESIDE = (segmentation.FACE, *segmentation.BROWS, segmentation.NOSE)
"""What skin around eyes is called."""


class EyePixels(NamedTuple):
    """Rays through the middles of pixels, near the model's frame; NPHM units."""

    origins: np.ndarray  # [Q, 3]
    directions: np.ndarray  # [Q, 3] unit length
    starts: np.ndarray  # [Q] along the ray, before the eye
    is_eye: np.ndarray  # [Q] bool


def eye_pixels(
    capture: Capture,
    timestep: Timestep,
    pose: Similarity,
    eyes: np.ndarray,
    rng: np.random.Generator,
) -> EyePixels | None:
    """Draws pixels of the most frontal cameras that have label maps.

    Args:
      capture: with label maps.
      timestep: the frame.
      pose: of its head.
      eyes: [2, 3] their middles in the model's frame, NPHM units.
      rng: draws the pixels.

    Returns:
      At most `MOST_PIXELS`; None without label maps, or if no camera sees an eye.
    """
    found = []
    for camera in _frontal(capture, timestep, pose, eyes):
        labels = capture.labels(timestep, camera.camera_id)
        if labels is None:
            continue
        view = camera.world2cam.astype(np.float64) @ pose.matrix()
        view[:3, :3] *= METRES_PER_UNIT  # from the model's frame, NPHM units
        scale = np.array(labels.shape[::-1]) / [camera.width, camera.height]
        k = np.diag([*scale, 1.0]) @ camera.K
        for eye in eyes:
            own = _around(view, k, labels, eye, rng)
            if own is not None:
                found.append(own)
        if len(found) == 2 * _MOST_CAMERAS:
            break
    if not found:
        return None
    rays = EyePixels(*(np.concatenate(x) for x in zip(*found, strict=True)))
    if len(rays.is_eye) > MOST_PIXELS:
        rows = rng.choice(len(rays.is_eye), MOST_PIXELS, replace=False)
        rays = EyePixels(*(x[rows] for x in rays))
    return rays


def _frontal(
    capture: Capture, timestep: Timestep, pose: Similarity, eyes: np.ndarray
) -> list[Camera]:
    """Cameras that the face looks at, the most frontal first."""
    ranked = []
    for camera_id in capture.cameras:
        camera = capture.camera(timestep, camera_id)
        rotation = camera.world2cam[:3, :3].astype(np.float64)
        centre = -rotation.T @ camera.world2cam[:3, 3]
        toward = pose.to_head(centre[None])[0] - eyes.mean(axis=0)
        frontal = toward[2] / np.linalg.norm(toward)
        if frontal > _LEAST_FRONTAL:
            ranked.append((frontal, camera_id, camera))
    return [camera for _, _, camera in sorted(ranked, key=lambda x: (-x[0], x[1]))]


def _around(
    view: np.ndarray,
    k: np.ndarray,
    labels: np.ndarray,
    eye: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, ...] | None:
    """Rays of one camera about one eye."""
    scale = np.cbrt(np.linalg.det(view[:3, :3]))
    place = view[:3, :3] @ eye + view[:3, 3]
    middle = k @ place
    middle = middle[:2] / middle[2]
    reach = _REACH * scale * k[0, 0] / place[2]
    low = np.maximum(np.floor(middle - reach), 0).astype(int)
    high = np.minimum(np.ceil(middle + reach), labels.shape[::-1]).astype(int)
    if (high <= low).any():
        return None
    columns, rows = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
    label = labels[rows, columns].reshape(-1)
    pixels = np.stack([columns.reshape(-1), rows.reshape(-1)], axis=-1) + 0.5
    is_eye = np.isin(label, segmentation.EYES)
    known = np.flatnonzero(is_eye | np.isin(label, _BESIDE))
    known = known[np.linalg.norm(pixels[known] - middle, axis=-1) < reach]
    most = MOST_PIXELS // (2 * _MOST_CAMERAS)
    if len(known) == 0:
        return None
    if len(known) > most:
        known = rng.choice(known, most, replace=False)
    ahead = np.concatenate([pixels[known], np.ones((len(known), 1))], axis=-1)
    ahead = ahead @ np.linalg.inv(k).T @ view[:3, :3] / scale**2
    ahead /= np.linalg.norm(ahead, axis=-1, keepdims=True)
    origin = -view[:3, :3].T @ view[:3, 3] / scale**2
    start = np.linalg.norm(eye - origin) - 1.5 * _REACH
    return (
        np.broadcast_to(origin, ahead.shape),
        ahead,
        np.full(len(known), start),
        is_eye[known],
    )
