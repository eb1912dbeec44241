"""Heads seen by one camera: first poses, and landmarks as rays."""

from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from npga_jax.nphm import METRES_PER_UNIT
from npga_jax.tracking.alignment import Similarity
from npga_jax.tracking.landmark_term import Sightings

_STEPS = 12
_NEAREST = 0.05
"""Metres from the camera, at least."""


class Lens(NamedTuple):
    """A camera without distortion."""

    K: np.ndarray  # [3, 3] pixels
    width: int
    height: int


def usual_lens(width: int, height: int) -> Lens:
    """The lens of a webcam or a telephone held upright: 1.2 long sides of focal length.

    That is 45 degrees across the long side. A wrong one makes a head appear nearer or
    farther, and flatter or rounder by a little.
    """
    focal = 1.2 * max(width, height)
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    return Lens(K, width, height)


def pose_by_landmarks(head: np.ndarray, pixels: np.ndarray, lens: Lens) -> Similarity:
    """The pose for which points of a head are seen at pixels; the camera is the world.

    From a weak perspective, by Gauss and Newton's steps.

    Args:
      head: [L, 3] NPHM units.
      pixels: [L, 2].
      lens: of the camera.
    """
    points = METRES_PER_UNIT * head
    rays = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1)
    seen = (rays @ np.linalg.inv(lens.K).T)[:, :2]
    rotation, shift = _weak_perspective(points, seen)
    for _ in range(_STEPS):
        turned = points @ rotation.T
        x, y, z = (turned + shift).T
        z = np.maximum(z, _NEAREST)
        left = np.stack([x / z, y / z], axis=-1) - seen
        zero = np.zeros_like(z)
        by_place = np.stack(
            [
                np.stack([1 / z, zero, -x / z**2], axis=-1),
                np.stack([zero, 1 / z, -y / z**2], axis=-1),
            ],
            axis=1,
        )
        a, b, c = turned.T
        by_turn = np.stack([zero, c, -b, -c, zero, a, b, -a, zero], axis=-1)
        jacobian = np.concatenate([by_place @ by_turn.reshape(-1, 3, 3), by_place], -1)
        jacobian = jacobian.reshape(-1, 6)
        step = np.linalg.lstsq(jacobian, -left.reshape(-1), rcond=None)[0]
        rotation = Rotation.from_rotvec(step[:3]).as_matrix() @ rotation
        shift = shift + step[3:]
    return Similarity(rotation, shift, 1.0)


def _weak_perspective(
    points: np.ndarray, seen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and translation of points seen as if all were equally far away."""
    middle, centre = points.mean(axis=0), seen.mean(axis=0)
    rows = np.linalg.lstsq(points - middle, seen - centre, rcond=None)[0].T
    u, sizes, v = np.linalg.svd(rows, full_matrices=False)
    upper = u @ v
    rotation = np.vstack([upper, np.cross(upper[0], upper[1])])
    depth = 2.0 / max(float(sizes.sum()), 1e-9)
    place = np.array([*(centre * depth), depth])
    return rotation, place - rotation @ middle


def ray_sightings(
    poses: list[Similarity], pixels: np.ndarray, weights: np.ndarray, lens: Lens
) -> Sightings:
    """Landmarks of one camera's frames, brought near the model's frame.

    Args:
      poses: T first poses, the camera's frame being the world.
      pixels: [T, L, 2].
      weights: [L] or [T, L].
      lens: of the camera.
    """
    rays = np.concatenate([pixels, np.ones((*pixels.shape[:2], 1))], axis=-1)
    rays = rays @ np.linalg.inv(lens.K).T
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    points, across = [], []
    for pose, own in zip(poses, rays, strict=True):
        origin = pose.to_head(np.zeros((1, 3)))
        direction = pose.turn_to_head(own)
        points.append(np.broadcast_to(origin, direction.shape))
        across.append(np.eye(3) - direction[:, :, None] * direction[:, None, :])
    weights = np.broadcast_to(weights, pixels.shape[:2])
    return Sightings(np.stack(points), np.stack(across), weights)
