"""Openings of the eyes: what of the eyeballs is seen, whatever the lids do."""

import numpy as np

from npga_jax.prior.scans import EYES


def eye_openings(
    faces: np.ndarray, regions: np.ndarray, mean: np.ndarray
) -> tuple[np.ndarray, ...]:
    """The rims of skin around eyeballs, as loops of vertices in order.

    Args:
      faces: [F, 3].
      regions: [V] of `scans`.
      mean: [V, 3] the mean neutral head.

    Returns:
      A loop for each eye; none without eyeballs, or where no rim is around them.
    """
    eyes = np.flatnonzero(regions == EYES)
    skin = faces[(regions[faces] != EYES).all(axis=1)]
    loops = _border_loops(skin)
    inside = [_is_inside(mean[eyes], mean[loop]) for loop in loops]
    sizes = np.array([_area(mean[loop]) for loop in loops])
    chosen = set()
    for i in range(len(eyes)):
        around = [k for k, within in enumerate(inside) if within[i]]
        if around:  # A face without the back of its head has a rim around everything.
            chosen.add(min(around, key=lambda k: sizes[k]))
    return tuple(loops[k] for k in sorted(chosen))


def seen_vertices(
    vertices: np.ndarray, regions: np.ndarray, openings: tuple[np.ndarray, ...]
) -> np.ndarray:
    """Which vertices are of the outer surface: all but what lids hide of the eyeballs.

    Args:
      vertices: [V, 3] of one head, as posed.
      regions: [V] of `scans`.
      openings: of `eye_openings`; without any, nothing is taken for hidden.

    Returns:
      [V] bool. Between shut lids nothing is seen.
    """
    seen = np.ones(len(vertices), bool)
    if openings:
        eyes = np.flatnonzero(regions == EYES)
        seen[eyes] = np.any(
            [_is_inside(vertices[eyes], vertices[loop]) for loop in openings], axis=0
        )
    return seen


def _border_loops(faces: np.ndarray) -> list[np.ndarray]:
    """Closed walks along edges that one triangle alone has, at least three long."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    _, which, count = np.unique(
        np.sort(edges, axis=1), axis=0, return_inverse=True, return_counts=True
    )
    border = edges[count[which.ravel()] == 1]
    after = {int(a): int(b) for a, b in border}
    loops = []
    while after:
        start = next(iter(after))
        loop, vertex = [], start
        while vertex in after:
            loop.append(vertex)
            vertex = after.pop(vertex)
        if vertex == start and len(loop) >= 3:
            loops.append(np.array(loop))
    return loops


def _is_inside(points: np.ndarray, loop: np.ndarray) -> np.ndarray:
    """Whether points [P, 3] are within a polygon [L, 3], both seen along z: [P]."""
    x, y = points[:, :1], points[:, 1:2]
    a, b = loop[:, :2], np.roll(loop[:, :2], -1, axis=0)
    crosses = (a[:, 1] > y) != (b[:, 1] > y)
    rise = np.where(a[:, 1] == b[:, 1], 1.0, b[:, 1] - a[:, 1])
    at = a[:, 0] + (y - a[:, 1]) / rise * (b[:, 0] - a[:, 0])
    return (crosses & (x < at)).sum(axis=1) % 2 == 1


def _area(loop: np.ndarray) -> float:
    """Of a polygon [L, 3] seen along z."""
    x, y = loop[:, 0], loop[:, 1]
    return abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2
