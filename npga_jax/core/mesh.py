"""Triangle meshes as arrays: normals, and the parts that hang together."""

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


class Mesh(NamedTuple):
    """A triangle mesh; numpy arrays, the unit and frame are its maker's."""

    vertices: np.ndarray  # [V, 3] float32
    faces: np.ndarray  # [F, 3] int32, counter-clockwise seen from outside
    normals: np.ndarray | None = None  # [V, 3] float32, unit, outward
    colors: np.ndarray | None = None  # [V, 3] uint8


class Dropped(NamedTuple):
    """What `keep_largest` took away."""

    components: int
    faces: int


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals at vertices: the mean of the faces around, weighted by area.

    Args:
      vertices: [V, 3].
      faces: [F, 3] indices, counter-clockwise seen from outside.

    Returns:
      [V, 3] float32, outward; zero at a vertex without a face of any area.
    """
    corners = np.asarray(vertices, np.float64)[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat = faces.ravel()
    total = np.stack(
        [
            np.bincount(flat, np.repeat(column, 3), minlength=len(vertices))
            for column in normals.T
        ],
        axis=1,
    )
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return (total / np.where(length > 0, length, 1)).astype(np.float32)


def keep_largest(mesh: Mesh, count: int = 1) -> tuple[Mesh, Dropped]:
    """Keeps the connected components with the most faces.

    Args:
      mesh: any mesh; faces are connected where they share a vertex.
      count: components to keep, at least 1.

    Returns:
      The mesh without the others (vertices in their old order, those that no face
      uses left out), and what was dropped.
    """
    if count < 1:
        raise ValueError(f"count is {count}; at least one component must be kept.")
    num_vertices, faces = len(mesh.vertices), mesh.faces
    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = coo_array(
        (np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])),
        shape=(num_vertices, num_vertices),
    )
    _, labels = connected_components(graph, directed=False)
    label_of_face = labels[faces[:, 0]]
    sizes = np.bincount(label_of_face, minlength=1)
    largest = np.argsort(-sizes, kind="stable")[:count]
    keep = np.isin(label_of_face, largest)
    used = np.zeros(num_vertices, bool)
    used[faces[keep]] = True
    new_index = np.cumsum(used, dtype=np.int32) - 1
    kept = Mesh(
        vertices=mesh.vertices[used],
        faces=new_index[faces[keep]],
        normals=None if mesh.normals is None else mesh.normals[used],
        colors=None if mesh.colors is None else mesh.colors[used],
    )
    num_components = int(np.count_nonzero(sizes))
    dropped = Dropped(
        components=max(num_components - count, 0), faces=int((~keep).sum())
    )
    return kept, dropped


def edge_strain(
    points: np.ndarray,  # [V, 3] at rest
    edges: np.ndarray,  # [M, 2] indices of the ends
    displacements: np.ndarray,  # [V, 3]
    *,
    short: float,
) -> np.ndarray:
    """How much displacements differ along edges, in units of their length: [M].

    Zero where everything moves alike.

    Args:
      short: added to the lengths, in their unit: below it, an edge says little.
    """
    first, second = edges[:, 0], edges[:, 1]
    lengths = np.linalg.norm(points[first] - points[second], axis=-1)
    apart = np.linalg.norm(displacements[first] - displacements[second], axis=-1)
    return apart / (lengths + short)
