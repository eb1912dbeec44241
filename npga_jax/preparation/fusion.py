"""One cloud from the depth maps of all views: what agrees, thinned and smoothed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from npga_jax.preparation.patch_match import PATCH_VARIANCE, DepthMap
from npga_jax.preparation.stereo import GRID, View, project

_MOST_COST = 0.3
_TOLERANCE = 0.0015
"""Metres by which depths of two views may differ."""
_AGREEING = 2
"""Other views that must agree."""
_RADIUS = 0.006
_NEAREST = 64
_HEIGHT = 0.0008
"""Metres from the surface around a point, over which others lose weight."""
_LEAST_NEIGHBOURS = 5
_RIDGE = (1e-6, 0.05, 0.05, 0.5, 0.5, 0.5)
"""Added to the normal equations of a paraboloid: few neighbours make it flat."""
_MOST_SHIFT = 0.003
"""Metres that a point is moved along its normal at the end."""


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
    pixel = np.median(
        np.concatenate([_pixel_sizes(v, m) for v, m in zip(views, maps, strict=True)])
    )
    return _smoothed(dense, seeds, PATCH_VARIANCE * pixel**2)


def _pixel_sizes(view: View, own: DepthMap) -> np.ndarray:
    """Metres across a pixel, wherever a view has a depth."""
    return own.depth[own.depth > 0] / view.camera.K[0, 0]


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


def _smoothed(dense: Cloud, seeds: np.ndarray, blur: float) -> Cloud:
    """Moves points onto the surface that their neighbours lie on.

    A paraboloid through the neighbours tells how the surface bends. Patches of stereo
    see its mean over their width, which lies within where it is convex (a nose by more
    than a millimetre): that much is given back.

    Args:
      dense: all points.
      seeds: rows of those that are kept; lonely ones are left out.
      blur: variance of a patch along each of its sides, square metres.
    """
    tree = KDTree(dense.xyz)
    xyz, normals = dense.xyz[seeds], dense.normals[seeds]
    support = np.zeros(len(xyz))
    for _ in range(2):
        hood = _Hood(tree, dense, xyz, normals)
        normals = hood.plane_normals(normals)
        xyz = xyz + hood.height_of_mean(normals)[:, None] * normals
    hood = _Hood(tree, dense, xyz, normals)
    height, normals, bend = hood.paraboloid(normals)
    outward = np.clip(height - bend * blur, -_MOST_SHIFT, _MOST_SHIFT)
    support = hood.support
    kept = support >= _LEAST_NEIGHBOURS
    xyz = xyz + outward[:, None] * normals
    return Cloud(xyz[kept], dense.rgb[seeds][kept], normals[kept])


class _Hood:
    """The neighbours of some points, as seen from each, and how much they count."""

    def __init__(
        self, tree: KDTree, dense: Cloud, xyz: np.ndarray, normals: np.ndarray
    ):
        distance, near = tree.query(
            xyz, k=_NEAREST, distance_upper_bound=_RADIUS, workers=-1
        )
        there = near < len(dense.xyz)
        near = np.where(there, near, 0)
        self.away = dense.xyz[near] - xyz[:, None]
        weight = np.exp(-((np.where(there, distance, 0) / (0.6 * _RADIUS)) ** 2))
        facing = np.einsum("pnk,pk->pn", dense.normals[near], normals)
        weight = weight * there * np.clip(facing, 0, 1)
        height = np.einsum("pnk,pk->pn", self.away, normals)
        middle = np.median(np.where(weight > 0, height, 0), axis=1, keepdims=True)
        self.weight = weight * np.exp(-(((height - middle) / _HEIGHT) ** 2))
        self.total = self.weight.sum(axis=1) + 1e-9
        self.mean = np.einsum("pn,pnk->pk", self.weight, self.away)
        self.mean /= self.total[:, None]
        self.support = (self.weight > 0.1).sum(axis=1)

    def plane_normals(self, normals: np.ndarray) -> np.ndarray:
        """Normals [P, 3] of the neighbours' planes; the given where there is none."""
        apart = self.away - self.mean[:, None]
        spread = np.einsum("pn,pni,pnj->pij", self.weight, apart, apart)
        sizes, axes = np.linalg.eigh(spread)
        across = axes[..., 0]
        across *= np.where((across * normals).sum(-1) < 0, -1, 1)[:, None]
        is_plane = sizes[:, 1] > 0.05 * sizes[:, 2]
        return np.where(is_plane[:, None], across, normals)

    def height_of_mean(self, normals: np.ndarray) -> np.ndarray:
        """How far the neighbours' mean is above each point: [P]."""
        return (self.mean * normals).sum(-1)

    def paraboloid(
        self, normals: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the neighbours: height at the point [P], normal [P, 3], mean bend [P].

        The bend is the mean of the second derivatives, negative where convex; it is
        shrunk where few neighbours tell it.
        """
        one, other = _tangents(normals)
        u, v, h = (
            np.einsum("pnk,pk->pn", self.away, axis) / _RADIUS
            for axis in (one, other, normals)
        )
        columns = np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1)
        weighted = columns * self.weight[..., None]
        normal = np.einsum("pni,pnj->pij", weighted, columns)
        normal += np.diag(_RIDGE)
        right = np.einsum("pni,pn->pi", weighted, h)
        found = np.linalg.solve(normal, right[..., None])[..., 0]
        slope = normals - found[:, 1:2] * one - found[:, 2:3] * other
        slope /= np.linalg.norm(slope, axis=1, keepdims=True)
        bend = (found[:, 3] + found[:, 5]) / _RADIUS
        return found[:, 0] * _RADIUS, slope, bend


def _tangents(normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two directions [P, 3] across each normal and each other."""
    least = np.eye(3)[np.abs(normals).argmin(axis=1)]
    one = np.cross(normals, least)
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    return one, np.cross(normals, one)
