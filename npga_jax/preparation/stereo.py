"""Depth maps of all cameras at one moment, within a box or the mattes' hull in it."""

import concurrent.futures
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage

from npga_jax.data import Camera
from npga_jax.preparation.patch_match import DepthMap, match_view

ndimage: Any = scipy.ndimage  # Types of what it returns are not known.

GRID = 2
"""Pixels of the images from one depth to the next."""
_NEIGHBOURS = 4
_LEAST_ANGLE = 5.0
"""Degrees between cameras, seen from the head, below which depth is poorly told."""
_SWEEPS = 3
_HALF_BOX = 0.22
"""Metres from the middle of what the cameras look at: half of the hull's box."""
_VOXELS = 72
_BLOCK = 8
_DEEPEST = 0.16
"""Metres behind the hull's front where surfaces are sought, if there are mattes."""
_GREY = np.array([0.3, 0.5, 0.2], np.float32)


class View(NamedTuple):
    """What a camera sees at one moment."""

    image: np.ndarray  # [H, W, 3] uint8
    matte: np.ndarray | None  # [H, W] uint8; None: whatever lies in the box
    camera: Camera


def depth_maps(views: Sequence[View], *, workers: int) -> list[DepthMap]:
    """Finds planes in every view, by comparison with its neighbours.

    Args:
      views: three or more, of one size; where one has no matte, all of the box that it
        sees is searched.
      workers: threads.
    """
    images = np.stack([v.image.astype(np.float32) @ _GREY / 255 for v in views])
    matrices = [v.camera.world2cam.astype(np.float64) for v in views]
    middle = middle_of(matrices)
    hull, voxel = _hull(views, middle)
    neighbours = neighbours_of(matrices, middle)

    def match(i: int) -> DepthMap:
        to_other = []
        for j in neighbours[i]:
            P = matrices[j] @ np.linalg.inv(matrices[i])
            to_other.append(views[j].camera.K.astype(np.float64) @ P[:3])
        near, far = _ranges(views[i], hull, voxel)
        return match_view(
            images,
            i,
            neighbours[i],
            views[i].camera.K.astype(np.float64),
            np.array(to_other),
            near,
            far,
            grid=GRID,
            sweeps=_SWEEPS,
            seed=i,
        )

    with concurrent.futures.ThreadPoolExecutor(max(workers, 1)) as pool:
        return list(pool.map(match, range(len(views))))


def middle_of(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """[3] the point that the cameras' axes come closest to; world metres."""
    A, b = np.zeros((3, 3)), np.zeros(3)
    for matrix in matrices:
        rotation = matrix[:3, :3]
        across = np.eye(3) - np.outer(rotation[2], rotation[2])
        A += across
        b += across @ (-rotation.T @ matrix[:3, 3])
    return np.linalg.solve(A + 1e-9 * np.eye(3), b)


def neighbours_of(
    matrices: Sequence[np.ndarray], middle: np.ndarray
) -> list[np.ndarray]:
    """For each camera the nearest others by angle, but not the very nearest: [N]."""
    ways = np.stack([-m[:3, :3].T @ m[:3, 3] for m in matrices]) - middle
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    angles = np.degrees(np.arccos(np.clip(ways @ ways.T, -1, 1)))
    np.fill_diagonal(angles, np.inf)
    order = np.argsort(np.where(angles < _LEAST_ANGLE, 180 + angles, angles), axis=1)
    return [row[: min(_NEIGHBOURS, len(matrices) - 1)] for row in order]


def _hull(views: Sequence[View], middle: np.ndarray) -> tuple[np.ndarray, float]:
    """Centres [P, 3] of the voxels that no matte excludes, and their size."""
    size = 2 * _HALF_BOX / _VOXELS
    steps = (np.arange(_VOXELS) + 0.5) * size - _HALF_BOX
    points = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3) + middle
    for view in views:
        if view.matte is None:
            continue
        column, row, _ = project(points, view.camera)
        height, width = view.matte.shape
        seen = (column >= 0) & (row >= 0) & (column < width) & (row < height)
        inside = ndimage.maximum_filter(view.matte, 7) > 128
        out = seen.copy()
        out[seen] = ~inside[row[seen].astype(int), column[seen].astype(int)]
        points = points[~out]
    return points, size


def _ranges(
    view: View, hull: np.ndarray, voxel: float
) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest depth [h, w] float32 at the grid points of a view."""
    height, width = view.image.shape[:2]
    column, row, z = project(hull, view.camera)
    high, wide = -(-height // _BLOCK), -(-width // _BLOCK)
    i, j = (row // _BLOCK).astype(int), (column // _BLOCK).astype(int)
    seen = (i >= 0) & (j >= 0) & (i < high) & (j < wide)
    near = np.full((high, wide), np.inf, np.float32)
    far = np.zeros((high, wide), np.float32)
    np.minimum.at(near, (i[seen], j[seen]), z[seen])
    np.maximum.at(far, (i[seen], j[seen]), z[seen])
    near = ndimage.minimum_filter(near, 3) - voxel
    far = ndimage.maximum_filter(far, 3) + voxel
    if view.matte is not None:
        far = np.minimum(far, near + _DEEPEST)
    rows = np.arange(GRID // 2, height, GRID)
    columns = np.arange(GRID // 2, width, GRID)
    at = rows[:, None] // _BLOCK, columns // _BLOCK
    near, far = near[at], far[at]
    if view.matte is not None:
        far = np.where(view.matte[rows[:, None], columns] > 128, far, 0)
    return near, far.astype(np.float32)


def project(
    points: np.ndarray, camera: Camera
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Column, row (whole numbers) and depth of points [P, 3] in the world."""
    matrix = camera.world2cam.astype(np.float64)
    seen = points @ matrix[:3, :3].T + matrix[:3, 3]
    pixels = seen @ camera.K.astype(np.float64).T
    z = np.maximum(seen[:, 2], 1e-6)
    return np.floor(pixels[:, 0] / z), np.floor(pixels[:, 1] / z), seen[:, 2]
