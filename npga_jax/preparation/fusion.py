"""One cloud from the depth maps of all views: what agrees, thinned and smoothed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from npga_jax.preparation.patch_match import DepthMap
from npga_jax.preparation.stereo import GRID, View, project

_MOST_COST = 0.5
_TOLERANCE = 0.0015
"""Metres by which depths of two views may differ."""
_AGREEING = 2
"""Other views that must agree."""
_RADIUS = 0.006
_NEAREST = 64
_HEIGHT = 0.0008
"""Metres from the surface around a point, over which others lose weight."""
_LEAST_NEIGHBOURS = 5


class Cloud(NamedTuple):
    """Points on what is seen, world metres."""

    xyz: np.ndarray  # [P, 3]
    rgb: np.ndarray  # [P, 3] in [0, 1]
    normals: np.ndarray  # [P, 3], outwards


def fuse(views: Sequence[View], maps: Sequence[DepthMap], num_points: int) -> Cloud:
    """Keeps what several views agree on, spread evenly.

    Args:
      views: what each camera sees.
      maps: depth maps of them.
      num_points: about how many are wanted.
    """
    dense = _agreed(views, maps)
    if len(dense.xyz) < _LEAST_NEIGHBOURS:
        return dense
    seeds = _spread(dense.xyz, num_points)
    return _smoothed(dense, seeds)


def _agreed(views: Sequence[View], maps: Sequence[DepthMap]) -> Cloud:
    """All points that enough views agree on, each the mean of what they say."""
    found: list[Cloud] = []
    for i, (view, own) in enumerate(zip(views, maps, strict=True)):
        rows, columns = np.nonzero((own.depth > 0) & (own.cost < _MOST_COST))
        K = view.camera.K.astype(np.float64)
        matrix = view.camera.world2cam.astype(np.float64)
        at = columns * GRID + GRID // 2, rows * GRID + GRID // 2
        rays = np.stack(
            [
                (at[0] + 0.5 - K[0, 2]) / K[0, 0],
                (at[1] + 0.5 - K[1, 2]) / K[1, 1],
                np.ones(len(rows)),
            ],
            axis=-1,
        )
        points = rays * own.depth[rows, columns][:, None]
        xyz = (points - matrix[:3, 3]) @ matrix[:3, :3]
        total, count = xyz.copy(), np.ones(len(xyz))
        for j, other in enumerate(maps):
            if j == i:
                continue
            theirs, agrees = _seen_by(xyz, views[j], other)
            total += np.where(agrees[:, None], theirs, 0)
            count += agrees
        kept = count > _AGREEING
        found.append(
            Cloud(
                (total / count[:, None])[kept],
                view.image[at[1], at[0]][kept] / 255,
                (own.normal[rows, columns] @ matrix[:3, :3])[kept],
            )
        )
    return Cloud(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _seen_by(
    xyz: np.ndarray, view: View, depth: DepthMap
) -> tuple[np.ndarray, np.ndarray]:
    """Where a view has points [P, 3] along its own rays, and whether it agrees [P]."""
    column, row, z = project(xyz, view.camera)
    height, width = depth.depth.shape
    inside = (z > 0) & (column >= 0) & (row >= 0)
    inside &= (column < width * GRID) & (row < height * GRID)
    i = np.where(inside, row // GRID, 0).astype(int)
    j = np.where(inside, column // GRID, 0).astype(int)
    there = depth.depth[i, j]
    agrees = inside & (depth.cost[i, j] < _MOST_COST)
    agrees &= (np.abs(there - z) < _TOLERANCE) & (there > 0)
    matrix = view.camera.world2cam.astype(np.float64)
    centre = -matrix[:3, 3] @ matrix[:3, :3]
    along = np.where(agrees, there / np.where(agrees, z, 1), 1)
    return centre + along[:, None] * (xyz - centre), agrees


def _spread(xyz: np.ndarray, num_points: int) -> np.ndarray:
    """One point of each cell of a lattice that leaves about as many as are wanted."""
    size = 0.0005
    while True:
        cells = np.floor((xyz - xyz.min(axis=0)) / size).astype(np.int64)
        key = (cells[:, 0] << 42) | (cells[:, 1] << 21) | cells[:, 2]
        _, first = np.unique(key, return_index=True)
        if len(first) <= 1.1 * num_points:
            return first
        size *= max(1.02, np.sqrt(len(first) / num_points) * 0.97)


def _smoothed(dense: Cloud, seeds: np.ndarray) -> Cloud:
    """Moves points onto the planes of their neighbours; lonely ones are left out."""
    tree = KDTree(dense.xyz)
    xyz, normals = dense.xyz[seeds], dense.normals[seeds]
    support = np.zeros(len(xyz))
    for _ in range(2):
        distance, near = tree.query(
            xyz, k=_NEAREST, distance_upper_bound=_RADIUS, workers=-1
        )
        there = near < len(dense.xyz)
        near = np.where(there, near, 0)
        away = dense.xyz[near] - xyz[:, None]
        weight = np.exp(-((np.where(there, distance, 0) / (0.6 * _RADIUS)) ** 2))
        facing = np.einsum("pnk,pk->pn", dense.normals[near], normals)
        weight = weight * there * np.clip(facing, 0, 1)
        height = np.einsum("pnk,pk->pn", away, normals)
        middle = np.median(np.where(weight > 0, height, 0), axis=1, keepdims=True)
        weight = weight * np.exp(-(((height - middle) / _HEIGHT) ** 2))
        total = weight.sum(axis=1) + 1e-9
        mean = np.einsum("pn,pnk->pk", weight, away) / total[:, None]
        apart = away - mean[:, None]
        spread = np.einsum("pn,pni,pnj->pij", weight, apart, apart)
        sizes, axes = np.linalg.eigh(spread)
        across = axes[..., 0]
        across *= np.where((across * normals).sum(-1) < 0, -1, 1)[:, None]
        is_plane = sizes[:, 1] > 0.05 * sizes[:, 2]
        normals = np.where(is_plane[:, None], across, normals)
        xyz = xyz + (mean * normals).sum(-1, keepdims=True) * normals
        support = (weight > 0.1).sum(axis=1)
    kept = support >= _LEAST_NEIGHBOURS
    return Cloud(xyz[kept], dense.rgb[seeds][kept], normals[kept])
