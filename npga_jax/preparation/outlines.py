"""Outlines of a person without a clean plate, by stereo and by colour.

Where several views agree on a depth within the head's box, there is the person: walls
lie outside of the box. Skin is found so, hair at the sides is not: its strands do not
look alike from two sides. What has the colours of the person, rather than those of the
rest of the image, and hangs together with what was found belongs to it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.ndimage

from npga_jax.preparation.patch_match import DepthMap
from npga_jax.preparation.stereo import GRID, View, project

ndimage: Any = scipy.ndimage  # Types of what it returns are not known.

_MOST_COST = 0.9
_TOLERANCE = 0.004
"""Metres by which depths of two views may differ: more than points of a cloud may."""
_AGREEING = 2
"""Other views that must agree."""
_WINDOW = 5
"""Grid points along the side of a square that decides together."""
_PART = 0.02
"""Parts of a person are at least this much of the largest."""
_FATTENING = 3
"""Grid points by which patches see a surface beyond its rim."""
_BINS = 16
"""Of each colour channel."""
_RATIO = 3.0
"""Largest logarithm of how much likelier a colour is on the person than elsewhere."""
_RARE = 1e-5
"""Share of a colour below which it says little."""
_MARGIN = 4
"""Grid points around the person whose colours are nobody's."""
_ROUNDS = 2


def outlines_of(views: Sequence[View], maps: Sequence[DepthMap]) -> list[np.ndarray]:
    """Finds the person in every view.

    Args:
      views: what each camera sees, with or without mattes, which are not used.
      maps: depth maps of them, of the box alone.

    Returns:
      A mask [H, W] bool per view, right within some pixels; all empty where views agree
      on nothing.
    """
    sure = [_sure(count >= _AGREEING) for count in _agreeing(views, maps)]
    colors = [_bins(v.image[GRID // 2 :: GRID, GRID // 2 :: GRID]) for v in views]
    person = sure
    for _ in range(_ROUNDS if any(s.any() for s in sure) else 0):
        person = _by_color(colors, person, sure)
    return [_enlarge(p, v.image.shape[:2]) for p, v in zip(person, views, strict=True)]


def _agreeing(views: Sequence[View], maps: Sequence[DepthMap]) -> list[np.ndarray]:
    """For each grid point [h, w] of each view, how many other views agree on it."""
    found = []
    for i, (view, own) in enumerate(zip(views, maps, strict=True)):
        rows, columns = np.nonzero((own.depth > 0) & (own.cost < _MOST_COST))
        K = view.camera.K.astype(np.float64)
        matrix = view.camera.world2cam.astype(np.float64)
        pixels = np.stack([columns, rows], axis=-1) * GRID + GRID // 2 + 0.5
        rays = np.ones((len(rows), 3))
        rays[:, :2] = (pixels - K[:2, 2]) / (K[0, 0], K[1, 1])
        points = rays * own.depth[rows, columns][:, None]
        xyz = (points - matrix[:3, 3]) @ matrix[:3, :3]
        counts = np.zeros(own.depth.shape, int)
        for j, (other, depth) in enumerate(zip(views, maps, strict=True)):
            if j != i:
                counts[rows, columns] += _agrees(xyz, other, depth)
        found.append(counts)
    return found


def _agrees(xyz: np.ndarray, view: View, depth: DepthMap) -> np.ndarray:
    """[P] whether a view sees points [P, 3] where they are."""
    column, row, z = project(xyz, view.camera)
    height, width = depth.depth.shape
    i, j = row // GRID, column // GRID
    inside = (z > 0) & (i >= 0) & (j >= 0) & (i < height) & (j < width)
    at = np.where(inside, i, 0).astype(int), np.where(inside, j, 0).astype(int)
    near = (depth.depth[at] > 0) & (np.abs(depth.depth[at] - z) < _TOLERANCE)
    return inside & near & (depth.cost[at] < _MOST_COST)


def _sure(agreed: np.ndarray) -> np.ndarray:
    """The large parts of what is agreed on [h, w], without their rims."""
    mostly = ndimage.uniform_filter(agreed.astype(np.float32), _WINDOW) > 0.5
    parts, _ = ndimage.label(mostly)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    large = (sizes > _PART * sizes.max())[parts]
    # What the image's edge cuts has no rim there.
    return ndimage.binary_erosion(large, iterations=_FATTENING, border_value=1)


def _by_color(
    colors: Sequence[np.ndarray],
    person: Sequence[np.ndarray],
    sure: Sequence[np.ndarray],
) -> list[np.ndarray]:
    """Masks [h, w] of what has the person's colours and touches what is sure.

    The person's colours are the same in all views, those of the rest each view's own.

    Args:
      colors: [h, w] numbers of colours.
      person: [h, w] masks so far.
      sure: [h, w] what is the person's, whatever its colour.
    """
    on = np.sum([_shares(c, p) for c, p in zip(colors, person, strict=True)], axis=0)
    on /= on.sum()
    found = []
    for color, mask, seed in zip(colors, person, sure, strict=True):
        rest = _shares(color, ~ndimage.binary_dilation(mask, iterations=_MARGIN))
        rest /= rest.sum() + 1e-9
        ratio = np.log((on + _RARE) / (rest + _RARE))[color]
        ratio = np.where(seed, _RATIO, np.clip(ratio, -_RATIO, _RATIO))
        likely = ndimage.uniform_filter(ratio, _WINDOW) > 0
        found.append(_touching(likely, seed))
    return found


def _touching(mask: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """The parts of a mask that hold some of the seed, closed and filled."""
    parts, count = ndimage.label(ndimage.binary_opening(mask) | seed)
    kept = np.zeros(count + 1, bool)
    kept[parts[seed]] = True
    closed = ndimage.binary_closing(kept[parts], iterations=2)
    return ndimage.binary_fill_holes(closed)


def _bins(image: np.ndarray) -> np.ndarray:
    """[h, w] number of each colour of [h, w, 3] uint8."""
    steps = image.astype(int) * _BINS // 256
    return (steps[..., 0] * _BINS + steps[..., 1]) * _BINS + steps[..., 2]


def _shares(color: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """How often each colour occurs within a mask, with those beside it."""
    counts = np.bincount(color[mask], minlength=_BINS**3).astype(np.float64)
    return ndimage.gaussian_filter(counts.reshape((_BINS,) * 3), 0.7).ravel()


def _enlarge(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask at the grid points as one of the whole image [H, W]."""
    rows, columns = (
        np.minimum(np.arange(size) // GRID, held - 1)
        for size, held in zip(shape, mask.shape, strict=True)
    )
    return mask[rows[:, None], columns]
