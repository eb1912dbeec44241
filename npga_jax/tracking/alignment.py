"""First poses: where the head is, before any code is known."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from npga_jax.core import rigid_motion
from npga_jax.nphm import METRES_PER_UNIT

_YAWS = (0.0, -25.0, 25.0, -50.0, 50.0)
_ITERATIONS = 40
_KEPT = 0.7
_MOST_POINTS = 1500
_FRONT_Z = 0.0
_LOWEST_Y = -0.42


class Similarity(NamedTuple):
    """world = scale * rotation @ head + translation, both in metres."""

    rotation: np.ndarray  # [3, 3]
    translation: np.ndarray  # [3]
    scale: float

    def matrix(self) -> np.ndarray:
        """[4, 4]."""
        out = np.eye(4)
        out[:3, :3] = self.scale * self.rotation
        out[:3, 3] = self.translation
        return out

    def to_head(self, points: np.ndarray) -> np.ndarray:
        """World metres [P, 3] to NPHM units."""
        local = (points - self.translation) @ self.rotation
        return local / (self.scale * METRES_PER_UNIT)

    def turn_to_head(self, vectors: np.ndarray) -> np.ndarray:
        """Directions [P, 3] from the world to the head's frame."""
        return vectors @ self.rotation


def similarity_from_matrix(matrix: np.ndarray) -> Similarity:
    """Takes rotation * scale and translation apart: [4, 4] -> Similarity."""
    matrix = matrix.astype(np.float64)
    scale = float(np.cbrt(np.linalg.det(matrix[:3, :3])))
    return Similarity(matrix[:3, :3] / scale, matrix[:3, 3], scale)


def refined(pose: Similarity, residual: np.ndarray) -> Similarity:
    """The pose after a fit's residual: x = R(residual) y + t in NPHM units.

    Args:
      pose: brought the points to y.
      residual: [6] rotation vector and translation.
    """
    turn = Rotation.from_rotvec(residual[:3]).as_matrix()
    rotation = pose.rotation @ turn.T
    shift = residual[3:] * METRES_PER_UNIT * pose.scale
    return Similarity(rotation, pose.translation - rotation @ shift, pose.scale)


def facing_cameras(points: np.ndarray, cameras: Sequence[np.ndarray]) -> Similarity:
    """A head upright in the cameras' images that looks at the middle of them.

    Args:
      points: [P, 3] world, metres, of the face.
      cameras: world-to-camera matrices [4, 4], OpenCV.
    """
    up = -np.mean([w[1, :3] for w in cameras], axis=0)
    centres = np.array([-w[:3, :3].T @ w[:3, 3] for w in cameras])
    forward = centres.mean(axis=0) - np.median(points, axis=0)
    up /= np.linalg.norm(up)
    forward -= up * (forward @ up)
    forward /= np.linalg.norm(forward)
    rotation = np.stack([np.cross(up, forward), up, forward], axis=1)
    return Similarity(rotation, np.median(points, axis=0), 1.0)


def iterative_closest_points(
    points: np.ndarray, tree: KDTree, target: np.ndarray, start: Similarity
) -> tuple[Similarity, float]:
    """Rigid alignment of a cloud to a surface given by points; scale is kept.

    Args:
      points: [P, 3] world, metres.
      tree: of `target`.
      target: [V, 3] NPHM units.
      start: first guess.

    Returns:
      The pose, and the mean distance of the nearest `_KEPT` of the points, NPHM units.
    """
    pose, error = start, np.inf
    unit = start.scale * METRES_PER_UNIT
    for _ in range(_ITERATIONS):
        local = pose.to_head(points)
        distance, index = tree.query(local)
        kept = distance <= np.quantile(distance, _KEPT)
        error = float(distance[kept].mean())
        source, goal = points[kept], target[np.asarray(index)[kept]] * unit
        pose = Similarity(*rigid_motion(goal, source), start.scale)
    return pose, error


def align_head(
    points: np.ndarray, head: np.ndarray, guesses: Sequence[Similarity]
) -> tuple[Similarity, float]:
    """Finds the head from some guesses, each of them also turned and centred.

    Args:
      points: [P, 3] world, metres, mostly of the face.
      head: [V, 3] vertices of the mean head, NPHM units.
      guesses: first poses; their rotations matter more than their translations.

    Returns:
      The best pose and its mean distance, NPHM units.
    """
    points = _thinned(points)
    front = head[(head[:, 2] > _FRONT_Z) & (head[:, 1] > _LOWEST_Y)]
    tree = KDTree(head, leafsize=16)
    best, best_error = guesses[0], np.inf
    for guess in guesses:
        for yaw in _YAWS:
            turn = Rotation.from_euler("y", yaw, degrees=True).as_matrix()
            rotation = guess.rotation @ turn
            unit = guess.scale * METRES_PER_UNIT
            shift = points.mean(axis=0) - rotation @ front.mean(axis=0) * unit
            starts = [Similarity(rotation, shift, guess.scale)]
            if yaw == 0:
                starts.append(guess)
            for start in starts:
                pose, error = iterative_closest_points(points, tree, head, start)
                if error < best_error:
                    best, best_error = pose, error
    return best, best_error


def _thinned(points: np.ndarray) -> np.ndarray:
    if len(points) <= _MOST_POINTS:
        return points
    rng = np.random.default_rng(0)
    return points[rng.choice(len(points), _MOST_POINTS, replace=False)]
