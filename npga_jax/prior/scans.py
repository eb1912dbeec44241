"""Registered scans: heads of one topology, of several people with expressions.

Vertices are in NPHM units (0.25 m), axes as NPHM: +x the subject's left, +y up, +z out
of the face. `neutral` heads have their mouth closed: they define canonical space.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

FACE, OUTER, EYES = 0, 1, 2
"""Regions of the surface: the face; back of the head, ears and neck; eyeballs."""


@dataclasses.dataclass(frozen=True, eq=False)
class RegisteredScans:
    """Scans in correspondence; vertices are made or read when they are asked for."""

    faces: np.ndarray  # [F, 3] int32, counter-clockwise from outside
    vertex_regions: np.ndarray  # [V] int8: FACE, OUTER or EYES
    mean: np.ndarray  # [V, 3] float32, the mean neutral head
    identity_of: np.ndarray  # [N] int32, the person of each scan
    is_neutral: np.ndarray  # [N] bool
    posed_fn: Callable[[np.ndarray], np.ndarray]  # scans [S] -> [S, V, 3] float32
    neutral_fn: Callable[[np.ndarray], np.ndarray]  # persons [S] -> [S, V, 3] float32
    source: str
    """One line on where the scans come from and their licence, for provenance."""

    @property
    def num_scans(self) -> int:
        """S: how many scans there are, of all persons together."""
        return len(self.identity_of)

    @property
    def num_identities(self) -> int:
        """How many persons they are of."""
        return int(self.identity_of.max()) + 1


def triangle_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Normals of triangles, twice their area long: [..., V, 3] -> [..., F, 3]."""
    a, b, c = (vertices[..., faces[:, i], :] for i in range(3))
    return np.cross(b - a, c - a)


def compact_mesh(faces: np.ndarray, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drops vertices from a mesh.

    Args:
      faces: [F, 3].
      keep: [V] bool.

    Returns:
      The triangles whose vertices are all kept, renumbered [F', 3] int32, and the old
      index of each vertex that they use [V'].
    """
    faces = faces[keep[faces].all(axis=1)]
    vertices, renumbered = np.unique(faces, return_inverse=True)
    return renumbered.reshape(-1, 3).astype(np.int32), vertices
