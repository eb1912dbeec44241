"""Where the canonical Gaussians start: points of some frames, in the head frame."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from npga_jax.avatar import SKULL
from npga_jax.core import InputError, neutral_first
from npga_jax.data import Capture, PointCloud, Timestep, segmentation, vote_labels

ON_SKULL = segmentation.EYES
"""Labels of what no expression moves."""
OUTLIER_FACTOR = 4.0
"""Points farther from their neighbours than this many medians are left out."""


def most_neutral(
    capture: Capture, timesteps: Sequence[Timestep], count: int
) -> list[Timestep]:
    """Timesteps that have a point cloud, the smallest expression codes first."""
    codes = np.array([capture.driving(t).expr for t in timesteps])
    found = []
    for timestep in (timesteps[row] for row in neutral_first(codes)):
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


def most_varied(
    capture: Capture,
    timesteps: Sequence[Timestep],
    chosen: Sequence[Timestep],
    count: int,
) -> list[Timestep]:
    """Timesteps with a point cloud whose codes are farthest from all chosen before.

    Args:
      chosen: those to begin with, at least one.
      count: how many more; fewer where there are not that many.
    """
    before = {t.index for t in chosen}
    rest = [t for t in timesteps if t.index not in before]
    codes = np.array([capture.driving(t).expr for t in (*chosen, *rest)])
    codes = codes / np.maximum(codes.std(axis=0), 1e-6)
    first, others = codes[: len(chosen)], codes[len(chosen) :]
    apart = np.full(len(rest), np.inf)
    for code in first:
        apart = np.minimum(apart, np.linalg.norm(others - code, axis=-1))
    found = []
    for _ in rest:
        if len(found) == count:
            break
        best = int(np.argmax(apart))
        apart[best] = -np.inf
        if capture.points(rest[best]) is not None:
            found.append(rest[best])
            away = np.linalg.norm(others - others[best], axis=-1)
            apart = np.minimum(apart, away)
    return found


def to_head_frame(cloud: PointCloud, world_from_head: np.ndarray) -> np.ndarray:
    """Points [P, 3] of a cloud in the head frame, metres."""
    head_from_world = np.linalg.inv(world_from_head.astype(np.float64))
    return cloud.xyz @ head_from_world[:3, :3].T + head_from_world[:3, 3]


def neighbour_spacing(points: np.ndarray, neighbours: int = 3) -> np.ndarray:
    """Root mean squared distance to the nearest points, [P]."""
    distances = KDTree(points).query(points, k=min(neighbours + 1, len(points)))[0]
    if distances.ndim == 1:
        return np.full(len(points), 1e-3)
    return np.sqrt(np.mean(distances[:, 1:] ** 2, axis=1))


def choose_rows(counts: Sequence[int], most: int, seed: int) -> list[np.ndarray]:
    """Draws from several sets as if from their union, without holding it.

    Args:
      counts: the number of rows of each set.
      most: how many are drawn in all; all of them where there are not more.
      seed: of the draw.

    Returns:
      The chosen rows of each set, ascending.
    """
    ends = np.cumsum(counts)
    total = int(ends[-1])
    if total <= most:
        return [np.arange(count) for count in counts]
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(total, most, replace=False))
    parts = np.split(rows, np.searchsorted(rows, ends[:-1]))
    return [part - start for part, start in zip(parts, ends - counts, strict=True)]


class InitialPoints(NamedTuple):
    """Where Gaussians start."""

    means: np.ndarray  # [P, 3] canonical, head frame, metres
    rgb: np.ndarray  # [P, 3] in [0, 1]
    spacing: np.ndarray  # [P] metres to the next points
    hyper: np.ndarray  # [P, D] hyper coordinates; D is zero without a head model
    bindings: np.ndarray  # [P, 2] shares of skull and jaw


def gather_points(
    capture: Capture,
    timesteps: Sequence[Timestep],
    *,
    max_points: int,
    seed: int,
    to_canonical: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    | None = None,
    on_skull: Collection[int] = (),
    left_out: Collection[int] = (),
    cameras: Sequence[str] | None = None,
) -> InitialPoints:
    """Merges the clouds of some timesteps, without stray points.

    One cloud is held at a time: first it is found out which points there are to choose
    from, then the chosen ones are read.

    Args:
      capture: with clouds.
      timesteps: those to merge, each with a cloud.
      seed: of the draw.
      max_points: at most this many are kept, drawn at random.
      to_canonical: (points [P, 3] posed in the head frame, expr [E]) -> canonical
        points and hyper coordinates; None takes posed points for canonical ones.
      on_skull: labels of points that stay where they are, whatever the expression.
      left_out: labels of points that are not taken. Without label maps no point has a
        label.
      cameras: whose label maps count; None for all.
    """
    kept, rigid = [], []
    for timestep in timesteps:
        cloud = _cloud(capture, timestep)
        points = to_head_frame(cloud, capture.driving(timestep).world_from_head)
        spacing = neighbour_spacing(points)
        wanted = spacing <= OUTLIER_FACTOR * np.median(spacing)
        fixed = np.zeros(len(points), bool)
        if on_skull or left_out:
            labels = vote_labels(capture, timestep, cloud, cameras)
            if labels is not None:
                fixed = np.isin(labels, list(on_skull))
                wanted &= ~np.isin(labels, list(left_out))
        kept.append(np.flatnonzero(wanted))
        rigid.append(fixed[wanted])
    found = []
    chosen = choose_rows([len(rows) for rows in kept], max_points, seed)
    for timestep, rows, fixed, own in zip(timesteps, kept, rigid, chosen, strict=True):
        cloud, driving = _cloud(capture, timestep), capture.driving(timestep)
        points = to_head_frame(cloud, driving.world_from_head)[rows[own]]
        fixed = fixed[own]
        canonical, hyper = points, np.zeros((len(points), 0))
        if to_canonical is not None:
            canonical, hyper = to_canonical(points, driving.expr)
        canonical = np.where(fixed[:, None], points, canonical)
        bindings = np.zeros((len(points), 2))
        bindings[fixed, SKULL] = 1.0
        found.append((canonical, cloud.rgb[rows[own]], hyper, bindings))
    return as_initial(*(np.concatenate(x) for x in zip(*found, strict=True)))


def _cloud(capture: Capture, timestep: Timestep) -> PointCloud:
    """The cloud of a timestep that was chosen because it has one."""
    cloud = capture.points(timestep)
    if cloud is None:
        raise ValueError(
            f"{timestep.sequence}, frame {timestep.frame_id} has no point cloud"
        )
    return cloud


def as_initial(
    xyz: np.ndarray,  # [P, 3]
    rgb: np.ndarray,  # [P, 3]
    hyper: np.ndarray,  # [P, D]
    bindings: np.ndarray,  # [P, 2]
) -> InitialPoints:
    """Points with the distances between them."""
    arrays = (xyz, rgb, neighbour_spacing(xyz), hyper, bindings)
    return InitialPoints(*(x.astype(np.float32) for x in arrays))


def join(first: InitialPoints, second: InitialPoints) -> InitialPoints:
    """Both, each with its own spacing; hyper coordinates that one lacks are zero."""
    width = max(first.hyper.shape[1], second.hyper.shape[1])

    def wide(points):
        lacking = width - points.hyper.shape[1]
        return points._replace(hyper=np.pad(points.hyper, ((0, 0), (0, lacking))))

    return InitialPoints(
        *(np.concatenate(x) for x in zip(wide(first), wide(second), strict=True))
    )
