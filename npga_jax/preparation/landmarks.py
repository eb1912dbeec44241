"""Landmarks of faces, triangulated from several cameras that agree."""

from typing import NamedTuple

import numpy as np

_TOLERANCE = 0.02
"""Of the face's height in a view: how far a landmark may be off to agree. The network
places what it sees within half of that, and what it cannot see anywhere."""
_MOST_PAIRS = 40
_LEAST_ANGLE = 3.0
"""Degrees between two rays that are to meet."""
_STEPS = 4
_FOREHEAD, _CHIN, _RIGHT, _LEFT = 10, 152, 234, 454
"""Landmarks whose order says which way a face looks."""


class Triangulated(NamedTuple):
    """Landmarks in the world; zero, everywhere, where too few cameras agree."""

    points: np.ndarray  # [P, 3] float32, world, metres
    agreeing: np.ndarray  # [P] uint8, cameras; 0 or at least 2
    error: np.ndarray  # [P] float32, RMS of theirs, in their pixels


def triangulate_face(
    pixels: np.ndarray, seen: np.ndarray, K: np.ndarray, world2cam: np.ndarray
) -> Triangulated:
    """The landmarks of one moment in the world.

    Cameras that are behind the face give nothing, whatever was found in their images;
    a first triangulation says which way it looks.

    Args:
      pixels: [C, P, 2] of the landmarks; anything where the face was not seen.
      seen: [C] bool.
      K: [C, 3, 3] intrinsics, pixels.
      world2cam: [C, 4, 4] OpenCV, metres.
    """
    pixels = np.where(seen[:, None, None], pixels, 0).astype(np.float64)
    tolerance = _TOLERANCE * np.maximum(np.ptp(pixels[..., 1], axis=1), 1.0)

    def solve(by: np.ndarray) -> Triangulated:
        usable = np.broadcast_to(by[:, None], pixels.shape[:2])
        return triangulate(pixels, usable, tolerance, K, world2cam)

    face = solve(seen)
    corners = [_FOREHEAD, _CHIN, _RIGHT, _LEFT]
    if not face.agreeing[corners].all():
        return face
    forehead, chin, right, left = face.points[corners].astype(np.float64)
    forward = np.cross(left - right, forehead - chin)
    rotation = world2cam[:, :3, :3].astype(np.float64)
    centres = -np.einsum("cji,cj->ci", rotation, world2cam[:, :3, 3])
    is_before = (centres - 0.5 * (left + right)) @ forward > 0
    return face if is_before[seen].all() else solve(seen & is_before)


def triangulate(
    pixels: np.ndarray,
    usable: np.ndarray,
    tolerance: np.ndarray,
    K: np.ndarray,
    world2cam: np.ndarray,
) -> Triangulated:
    """Points that most cameras agree on.

    Each point is guessed from every pair of rays; the guess that most cameras agree
    with is refined by linear least squares over them, weighted by what they are off.

    Args:
      pixels: [C, P, 2].
      usable: [C, P] bool.
      tolerance: [C] pixels that a camera may be off to agree.
      K: [C, 3, 3] intrinsics, pixels.
      world2cam: [C, 4, 4] OpenCV, metres.
    """
    project = K.astype(np.float64) @ world2cam[:, :3].astype(np.float64)
    inverse = np.linalg.inv(project[:, :, :3])
    centres = -np.einsum("cij,cj->ci", inverse, project[:, :, 3])
    homogeneous = np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=-1)
    rays = np.einsum("cij,cpj->cpi", inverse, homogeneous.astype(np.float64))
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    points = _best_of_pairs(pixels, usable, tolerance, project, centres, rays)
    for _ in range(_STEPS):
        off, depth = _reprojected(points, pixels, project)
        share = off / tolerance[:, None]
        agrees = usable & (share < 1) & (depth > 0)
        weight = np.where(agrees, (1 - np.minimum(share, 1) ** 2) ** 2, 0)
        weight /= (tolerance[:, None] * np.maximum(depth, 1e-6)) ** 2
        points = _linear(points, pixels, weight, project)
    off, depth = _reprojected(points, pixels, project)
    agrees = usable & (off < tolerance[:, None]) & (depth > 0)
    count = agrees.sum(axis=0)
    known = (count >= 2) & _is_wide(rays, agrees) & np.isfinite(points).all(axis=-1)
    squares = np.where(agrees, off**2, 0).sum(axis=0) / np.maximum(count, 1)
    return Triangulated(
        np.where(known[:, None], points, 0).astype(np.float32),
        np.where(known, count, 0).astype(np.uint8),
        np.where(known, np.sqrt(squares), 0).astype(np.float32),
    )


def _best_of_pairs(
    pixels: np.ndarray,
    usable: np.ndarray,
    tolerance: np.ndarray,
    project: np.ndarray,
    centres: np.ndarray,
    rays: np.ndarray,
) -> np.ndarray:
    """For each landmark, where that pair of rays meets that most cameras agree with."""
    best = np.full((pixels.shape[1], 3), np.nan)
    least = np.full(pixels.shape[1], np.inf)
    first, second = np.triu_indices(len(pixels), 1)
    count = min(len(first), _MOST_PAIRS)
    for i in np.linspace(0, len(first) - 1, count).astype(int):
        a, b = first[i], second[i]
        cosine = (rays[a] * rays[b]).sum(-1)
        across = np.maximum(1 - cosine**2, 1e-12)
        between = centres[b] - centres[a]
        along_a, along_b = rays[a] @ between, rays[b] @ between
        far_a = (along_a - cosine * along_b) / across
        far_b = (cosine * along_a - along_b) / across
        points = 0.5 * (
            centres[a] + far_a[:, None] * rays[a]
            + centres[b] + far_b[:, None] * rays[b]
        )  # fmt: skip
        is_pair = usable[a] & usable[b] & (far_a > 0) & (far_b > 0)
        is_pair &= cosine < np.cos(np.radians(_LEAST_ANGLE))
        off, depth = _reprojected(points, pixels, project)
        share = np.where(depth > 0, np.minimum(off / tolerance[:, None], 1), 1)
        cost = np.where(usable, share**2, 0).sum(axis=0)
        better = is_pair & (cost < least)
        best[better], least[better] = points[better], cost[better]
    return best


def _reprojected(
    points: np.ndarray, pixels: np.ndarray, project: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How many pixels points [P, 3] are off, and their depths: both [C, P]."""
    seen = np.einsum("cij,pj->cpi", project[:, :, :3], points) + project[:, None, :, 3]
    depth = np.nan_to_num(seen[..., 2], nan=-1.0)
    at = seen[..., :2] / np.where(np.abs(depth) > 1e-9, depth, 1e-9)[..., None]
    off = np.linalg.norm(at - pixels, axis=-1)
    return np.nan_to_num(off, nan=np.inf, posinf=np.inf), depth


def _linear(
    points: np.ndarray, pixels: np.ndarray, weight: np.ndarray, project: np.ndarray
) -> np.ndarray:
    """Weighted linear least squares of (u P3 - P1) X = 0; [P, 3].

    Points of which less than two cameras know stay.
    """
    rows = pixels[..., None] * project[:, None, 2:, :] - project[:, None, :2, :]
    normal = np.einsum("cp,cpki,cpkj->pij", weight, rows[..., :3], rows[..., :3])
    right = -np.einsum("cp,cpki,cpk->pi", weight, rows[..., :3], rows[..., 3])
    solvable = (weight > 0).sum(axis=0) >= 2
    normal = np.where(solvable[:, None, None], normal, np.eye(3))
    found = np.linalg.solve(normal, right[..., None])[..., 0]
    return np.where(solvable[:, None], found, points)


def _is_wide(rays: np.ndarray, agrees: np.ndarray) -> np.ndarray:
    """[P] whether two of the agreeing rays are far enough from parallel."""
    cosine = np.einsum("api,bpi->abp", rays, rays)
    both = agrees[:, None] & agrees[None]
    widest = np.where(both, cosine, 1).min(axis=(0, 1))
    return widest < np.cos(np.radians(_LEAST_ANGLE))
