"""Surfaces of signed distance fields as triangle meshes.

Marching cubes needs a full grid, but only the cells that the surface cuts need true
values. Blocks of cells are therefore refined from coarse to fine, and dropped where the
distance at their centre says that the surface cannot reach them.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from skimage.measure import marching_cubes

from npga_jax.core import Dropped, InputError, Mesh, keep_largest, vertex_normals
from npga_jax.nphm.codes import Codes
from npga_jax.nphm.model import HeadModel
from npga_jax.nphm.streaming import PointValues, evaluate_points

Box = tuple[tuple[float, float, float], tuple[float, float, float]]
SdfFn = Callable[[np.ndarray], np.ndarray]
"""Points [N, 3] float32 -> signed distances [N], positive outside."""

TRACKING_BOX: Box = ((-0.55, -0.5, -0.95), (0.55, 0.75, 0.4))
"""Corners of the box that MonoNPHM extracts heads from, NPHM units."""

_CHUNK = 1 << 15
"""Points of one launch, the fewest too: one program is compiled for all of them."""

_FINEST = 2
"""Cells along an edge of the last blocks: all their corners are evaluated."""


class ColoredMesh(NamedTuple):
    """The surface of a head, NPHM units."""

    vertices: np.ndarray  # [V, 3] float32
    faces: np.ndarray  # [F, 3] int32, counter-clockwise seen from outside
    normals: np.ndarray  # [V, 3] float32, unit, outward
    colors: np.ndarray | None  # [V, 3] uint8; None without colour
    dropped: Dropped


def head_mesh(
    model: HeadModel,
    codes: Codes,
    *,
    posed: bool,
    resolution: int = 256,
    box: Box | None = None,
    with_color: bool = True,
    keep_components: int = 1,
) -> ColoredMesh:
    """The surface of one head.

    Args:
      model: sizes and weights.
      codes: one head, every field [dim].
      posed: the head with its expression; False for the canonical, neutral one.
      resolution: grid points along each axis of the box.
      box: its lower and upper corner, NPHM units; default: MonoNPHM's.
      with_color: also evaluate colours, if the model has any.
      keep_components: how many of the largest connected components to keep; 0 for all.
        Networks are not trained far from the head, and may put pieces there.

    Returns:
      ColoredMesh. The deformation is a backward one, so that the posed surface needs no
      inversion: it is the zero level of the posed field.

    Raises:
      InputError: there is no surface in the box, or the field is not finite.
    """
    low, high = TRACKING_BOX if box is None else box

    def values_at(points: np.ndarray, **options: bool) -> PointValues:
        padded = np.zeros((max(len(points), _CHUNK), 3), np.float32)
        padded[: len(points)] = points
        return evaluate_points(
            model, padded, codes, posed=posed, chunk_size=_CHUNK, **options
        )

    def sdf_fn(points: np.ndarray) -> np.ndarray:
        return values_at(points).sdf[: len(points)]

    mesh = extract_mesh(sdf_fn, low, high, resolution)
    if len(mesh.faces) == 0:
        raise InputError(
            f"the head has no surface in the box from {tuple(low)} to {tuple(high)} "
            "(NPHM units): the weights or the codes are not those of a trained model, "
            "or the box lies elsewhere."
        )
    dropped = Dropped(components=0, faces=0)
    if keep_components > 0:
        mesh, dropped = keep_largest(mesh, keep_components)
    colors = None
    if with_color and model.cfg.has_color:
        color = values_at(mesh.vertices, with_color=True).color
        assert color is not None  # The model has colours, and they are asked for.
        colors = display_color(color[: len(mesh.vertices)])
    return ColoredMesh(
        vertices=mesh.vertices,
        faces=mesh.faces,
        normals=vertex_normals(mesh.vertices, mesh.faces),
        colors=colors,
        dropped=dropped,
    )


def display_color(color: np.ndarray) -> np.ndarray:
    """The network's colours, about [-1, 1], as uint8; [..., 3]."""
    return np.round(np.clip((color + 1) / 2, 0, 1) * 255).astype(np.uint8)


def extract_mesh(
    sdf_fn: SdfFn,
    box_min: tuple[float, float, float],
    box_max: tuple[float, float, float],
    resolution: int = 256,
    *,
    coarse: int = 16,
    safety: float = 1.2,
    level: float = 0.0,
) -> Mesh:
    """Marching cubes that evaluates the field near its surface only.

    The mesh is the one that the full grid gives, if the field is no steeper than
    `safety`. If it is, then a small component may be missed as a whole, but none is cut
    short: the surface is followed from the part that was seen.

    Args:
      sdf_fn: the field; called with many points at a time.
      box_min: lower corner of the box.
      box_max: upper corner.
      resolution: grid points along each axis; point i lies at
        box_min + i * (box_max - box_min) / (resolution - 1).
      coarse: the fewest blocks along each axis to begin with.
      safety: the greatest slope of the field that is reckoned with; that of a true
        distance is 1, networks exceed it in places.
      level: the value at the surface.

    Returns:
      Mesh without normals and colours; no vertices and faces if the box has no
      surface. Where the box cuts the surface, the mesh has a border.

    Raises:
      InputError: the box, the resolution or a value of the field cannot be used.
    """
    low, high = np.asarray(box_min, np.float64), np.asarray(box_max, np.float64)
    if low.shape != (3,) or high.shape != (3,) or not np.all(low < high):
        raise InputError(
            f"the box from {tuple(low.tolist())} to {tuple(high.tolist())} is empty; "
            "expected two corners of 3 numbers, the first below the second."
        )
    if resolution < 2 or coarse < 1:
        raise InputError(
            f"the grid has {resolution} points and starts from {coarse} blocks along "
            "each axis; expected at least 2 and 1."
        )
    grid = _Grid(_finite(sdf_fn), low, (high - low) / (resolution - 1), resolution)
    values = _sparse_values(grid, coarse, safety, level)
    if not values.min() < level < values.max():
        empty = np.zeros((0, 3))
        return Mesh(empty.astype(np.float32), empty.astype(np.int32))
    # "descent": values fall towards the inside.
    vertices, faces, _, _ = marching_cubes(values, level, gradient_direction="descent")
    vertices = vertices.astype(np.float64) * grid.spacing + low
    return Mesh(vertices.astype(np.float32), faces.astype(np.int32))


class _Grid(NamedTuple):
    """A field, and where it is sampled."""

    sdf_fn: SdfFn
    low: np.ndarray  # [3]
    spacing: np.ndarray  # [3] between neighbouring points
    resolution: int

    def values(self, index: np.ndarray) -> np.ndarray:
        """The field at grid positions [N, 3], whole or not."""
        return self.sdf_fn((index * self.spacing + self.low).astype(np.float32))

    def centers(self, block: np.ndarray, size: int) -> np.ndarray:
        """Grid positions [N, 3] of the centres of blocks [N, 3] of `size` cells.

        The last blocks are cut off at the end of the grid.
        """
        end = np.minimum((block + 1) * size, self.resolution - 1)
        return (block * size + end) / 2

    def radius(self, size: int) -> float:
        """Distance of the corners of a block of `size` cells from its centre."""
        return float(size / 2 * np.linalg.norm(self.spacing))


def _sparse_values(grid: _Grid, coarse: int, safety: float, level: float) -> np.ndarray:
    """The field on the grid [R, R, R]: true near the level, of true sign elsewhere."""
    num_cells = grid.resolution - 1
    size = _FINEST
    while num_cells >= 2 * size * coarse:
        size *= 2
    count = -(-num_cells // size)
    block = np.moveaxis(np.indices((count,) * 3), 0, -1).reshape(-1, 3)
    centers = np.empty((count,) * 3, np.float32)
    while True:
        value = grid.values(grid.centers(block, size))
        centers[tuple(block.T)] = value
        block = block[np.abs(value - level) <= safety * grid.radius(size)]
        if size == _FINEST:
            break
        size //= 2
        count = -(-num_cells // size)
        centers = _upsample(centers, count)
        offsets = np.moveaxis(np.indices((2, 2, 2)), 0, -1).reshape(-1, 3)
        block = (2 * block[:, None] + offsets).reshape(-1, 3)
        block = block[(block < count).all(1)]
    # Points take the value of a block around them until they have their own.
    of_point = np.minimum(np.arange(grid.resolution) // _FINEST, count - 1)
    values = centers[np.ix_(of_point, of_point, of_point)]
    is_known = np.zeros(values.shape, bool)
    is_kept = np.zeros(centers.shape, bool)
    while True:
        is_kept[tuple(block.T)] = True
        _evaluate_corners(grid, block, values, is_known)
        # A block whose points differ in sign is cut by the surface, although its
        # centre said otherwise: the surface is followed into it.
        block = np.argwhere(_is_cut(values, level, count) & ~is_kept)
        if len(block) == 0:
            return values


def _upsample(blocks: np.ndarray, count: int) -> np.ndarray:
    """Each block's value to its eight children, cropped to `count` along each axis."""
    for axis in range(3):
        blocks = np.repeat(blocks, 2, axis=axis)
    return blocks[:count, :count, :count]


def _evaluate_corners(
    grid: _Grid, block: np.ndarray, values: np.ndarray, is_known: np.ndarray
) -> None:
    """Evaluates the points of blocks [N, 3] that are not known, in place."""
    is_wanted = np.zeros(values.shape, bool)
    for offset in np.ndindex((_FINEST + 1,) * 3):
        index = np.minimum(block * _FINEST + offset, grid.resolution - 1)
        is_wanted[tuple(index.T)] = True
    index = np.argwhere(is_wanted & ~is_known)
    if len(index):
        values[tuple(index.T)] = grid.values(index)
        is_known |= is_wanted


def _is_cut(values: np.ndarray, level: float, count: int) -> np.ndarray:
    """Which blocks of the last size have points on both sides: [count] * 3."""
    outside = values > level
    any_outside, all_outside = outside, outside
    for axis in range(3):
        any_outside = _over_blocks(np.logical_or, any_outside, axis, count)
        all_outside = _over_blocks(np.logical_and, all_outside, axis, count)
    return any_outside & ~all_outside


def _over_blocks(
    combine: np.ufunc, points: np.ndarray, axis: int, count: int
) -> np.ndarray:
    """Combines the points that each block has along an axis, both its ends included."""
    last = points.shape[axis] - 1
    start = np.arange(count) * _FINEST
    result = np.take(points, start, axis)
    for step in range(1, _FINEST + 1):
        nearby = np.take(points, np.minimum(start + step, last), axis)
        result = combine(result, nearby)
    return result


def _finite(sdf_fn: SdfFn) -> SdfFn:
    """The field, with an error that names its first value that is not finite."""

    def checked(points: np.ndarray) -> np.ndarray:
        values = np.asarray(sdf_fn(points), np.float32)
        is_bad = ~np.isfinite(values)
        if is_bad.any():
            where = ", ".join(f"{x:.4f}" for x in points[is_bad.argmax()])
            raise InputError(
                f"the signed distance is not finite at {is_bad.sum()} of {len(points)} "
                f"points, the first is ({where}): the weights or the codes are damaged."
            )
        return values

    return checked
