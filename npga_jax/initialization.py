"""Where the canonical Gaussians start: points of neutral frames, in the head frame."""

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from npga_jax.data.capture import Capture, PointCloud, Timestep
from npga_jax.errors import InputError

OUTLIER_FACTOR = 4.0
"""Points farther from their neighbours than this many medians are left out."""


def most_neutral(
    capture: Capture, timesteps: Sequence[Timestep], count: int
) -> list[Timestep]:
    """Timesteps that have a point cloud, the smallest expression codes first."""
    by_size = sorted(
        timesteps, key=lambda t: (float(np.sum(capture.driving(t).expr ** 2)), t.index)
    )
    found = []
    for timestep in by_size:
        if len(found) == count:
            break
        if capture.points(timestep) is not None:
            found.append(timestep)
    if not found:
        raise InputError(
            f"subject {capture.subject} has no point cloud in any training frame; "
            "the avatar starts from pointclouds/frame_*.pcd of a neutral frame: "
            "supply at least one (multi-view stereo of that frame)."
        )
    return found


def to_head_frame(cloud: PointCloud, world_from_head: np.ndarray) -> np.ndarray:
    """Points [P, 3] of a cloud in the head frame, metres."""
    head_from_world = np.linalg.inv(world_from_head.astype(np.float64))
    return cloud.xyz @ head_from_world[:3, :3].T + head_from_world[:3, 3]


def neighbour_spacing(points: np.ndarray, neighbours: int = 3) -> np.ndarray:
    """Root mean squared distance to the nearest points, [P]."""
    distances = cKDTree(points).query(points, k=min(neighbours + 1, len(points)))[0]
    if distances.ndim == 1:
        return np.full(len(points), 1e-3)
    return np.sqrt(np.mean(distances[:, 1:] ** 2, axis=1))


def gather_points(
    capture: Capture, timesteps: Sequence[Timestep], *, max_points: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merges the clouds of some timesteps, without stray points.

    Returns:
      means [P, 3] head frame, rgb [P, 3], spacing [P] metres; P <= max_points.
    """
    xyz, rgb = [], []
    for timestep in timesteps:
        cloud = capture.points(timestep)
        points = to_head_frame(cloud, capture.driving(timestep).world_from_head)
        spacing = neighbour_spacing(points)
        kept = spacing <= OUTLIER_FACTOR * np.median(spacing)
        xyz.append(points[kept])
        rgb.append(cloud.rgb[kept])
    xyz, rgb = np.concatenate(xyz), np.concatenate(rgb)
    if len(xyz) > max_points:
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(len(xyz), max_points, replace=False))
        xyz, rgb = xyz[chosen], rgb[chosen]
    return (
        xyz.astype(np.float32),
        rgb.astype(np.float32),
        neighbour_spacing(xyz).astype(np.float32),
    )
