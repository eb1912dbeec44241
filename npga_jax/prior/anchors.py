"""Choosing anchors: vertices around which the local networks of a prior live."""

import numpy as np
from scipy.spatial import KDTree

from npga_jax.core import InputError

_PLANE = 0.02
"""Half the width, in NPHM units, of the strip that counts as the plane of symmetry."""


def mirror_vertices(vertices: np.ndarray) -> np.ndarray:
    """The vertex nearest to each one's mirror image at x = 0: [V, 3] -> [V]."""
    _, nearest = KDTree(vertices).query(vertices * np.array([-1, 1, 1]))
    return np.asarray(nearest)


def vertex_density(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """How fine the mesh is around each vertex, median 1: [V].

    Makers of registered topologies put vertices where shape has detail: around eyes
    and mouth. Anchors should do the same.
    """
    corners = vertices[faces]
    areas = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1
    )
    total, count = np.zeros(len(vertices)), np.zeros(len(vertices))
    for i in range(3):
        np.add.at(total, faces[:, i], areas)
        np.add.at(count, faces[:, i], 1)
    length = np.sqrt(total / np.maximum(count, 1)) + 1e-9
    return np.median(length) / length


def _farthest_points(
    points: np.ndarray, importance: np.ndarray, taken: np.ndarray, count: int
) -> list[int]:
    """Greedy farthest-point choice; distances count `importance` times."""
    distance = np.full(len(points), np.inf)
    for point in taken:
        distance = np.minimum(distance, np.linalg.norm(points - point, axis=-1))
    chosen = []
    for _ in range(count):
        best = int(np.argmax(np.where(np.isinf(distance), 1e3, distance) * importance))
        chosen.append(best)
        away = np.linalg.norm(points - points[best], axis=-1)
        distance = np.minimum(distance, away)
    return chosen


def choose_anchors(
    vertices: np.ndarray,
    faces: np.ndarray,
    candidates: np.ndarray,
    *,
    num_pairs: int,
    num_middle: int,
) -> np.ndarray:
    """Spreads anchors over a head, denser where its mesh is finer.

    Args:
      vertices: [V, 3] mean neutral head, NPHM units.
      faces: [F, 3].
      candidates: [V] bool, vertices that may become anchors.
      num_pairs: mirror pairs.
      num_middle: anchors on the plane of symmetry.

    Returns:
      [2 * num_pairs + num_middle] vertex indices in NPHM's order: pairs interleaved
      (the one with x < 0 first), then the middle ones.

    Raises:
      InputError: too few vertices for that many anchors.
    """
    importance = np.clip(vertex_density(vertices, faces), 0.4, 4.0)
    middle = np.flatnonzero(candidates & (np.abs(vertices[:, 0]) < _PLANE / 4))
    side = np.flatnonzero(candidates & (vertices[:, 0] < -_PLANE))
    if len(middle) < num_middle or len(side) < num_pairs:
        raise InputError(
            f"the mean head offers {len(side)} vertices on its right half and "
            f"{len(middle)} on its plane of symmetry (x = 0); {num_pairs} and "
            f"{num_middle} anchors were asked for. Centre the scans at x = 0."
        )
    centre = middle[
        _farthest_points(
            vertices[middle], importance[middle], np.zeros((0, 3)), num_middle
        )
    ]
    right = side[
        _farthest_points(vertices[side], importance[side], vertices[centre], num_pairs)
    ]
    left = mirror_vertices(vertices)[right]
    chosen = np.concatenate([right, left, centre])
    if len(np.unique(chosen)) < len(chosen) or not candidates[left].all():
        raise InputError("the mean head is not symmetric enough to pair its anchors.")
    pairs = np.stack([right, left], axis=1).reshape(-1)
    return np.concatenate([pairs, centre]).astype(np.int32)
