"""PatchMatch stereo of one view (Bleyer et al. 2011), compiled for the CPU.

Every grid point of the view keeps a plane: depth and normal. Planes are judged by how
well patches of other views, warped by the plane, correlate with the view's own. They
spread to neighbours and are varied at random, sweep by sweep.
"""

from math import sqrt
from typing import Any, NamedTuple

import numba
import numpy as np

_njit: Any = numba.njit
_compiled = _njit(nogil=True, cache=True, error_model="numpy")

NO_COST = 2.0
"""Of a plane that cannot be judged; correlations cost from 0 to 2."""
_HALF, _STEP = 2, 2
"""A patch: 5 x 5 samples, two pixels apart."""
PATCH_VARIANCE = float(np.mean((np.arange(-_HALF, _HALF + 1) * _STEP) ** 2))
"""Of a patch's samples along a side, square pixels."""
_STEEPEST = 0.15
"""Least cosine between a plane's normal and the way to the camera."""
_FLAT = 1e-6
"""Variance that counts as noise in the correlation."""


class DepthMap(NamedTuple):
    """Planes at the grid points of a view, in its camera's frame."""

    depth: np.ndarray  # [h, w] metres along z; 0 where there is none
    normal: np.ndarray  # [h, w, 3], towards the camera
    cost: np.ndarray  # [h, w] 1 - correlation, the mean of the best two views'


def match_view(
    images: np.ndarray,
    view: int,
    others: np.ndarray,
    K: np.ndarray,
    to_other: np.ndarray,
    near: np.ndarray,
    far: np.ndarray,
    *,
    grid: int,
    sweeps: int,
    seed: int,
) -> DepthMap:
    """Finds planes for one view.

    Args:
      images: [C, H, W] float32 grey.
      view: which of them.
      others: [N] int64, which it is compared with; two or more.
      K: [3, 3] of the view, pixels of `images`.
      to_other: [N, 3, 4] float64: pixels of the others, from the view's camera frame.
      near: [h, w] float32 metres, least depth at each grid point.
      far: [h, w] float32, largest; where it is not more than `near`, nothing is sought.
      grid: pixels from one grid point to the next.
      sweeps: over the whole grid.
      seed: of the random planes.
    """
    height, width = near.shape
    depth = np.zeros((height, width), np.float32)
    normal = np.zeros((height, width, 3), np.float32)
    cost = np.full((height, width), NO_COST, np.float32)
    camera = np.array([1 / K[0, 0], 1 / K[1, 1], K[0, 2], K[1, 2]], np.float64)
    _match(
        images, view, others, camera, to_other, near, far,
        depth, normal, cost, grid, sweeps, seed,
    )  # fmt: skip
    return DepthMap(depth, normal, cost)


@_compiled
def _sample(image, x, y):
    """Bilinear; negative outside."""
    height, width = image.shape
    x -= 0.5
    y -= 0.5
    if not (x >= 0 and y >= 0 and x < width - 1 and y < height - 1):
        return np.float32(-1)
    i, j = int(x), int(y)
    fx, fy = np.float32(x - i), np.float32(y - j)
    upper = image[j, i] + fx * (image[j, i + 1] - image[j, i])
    lower = image[j + 1, i] + fx * (image[j + 1, i + 1] - image[j + 1, i])
    return upper + fy * (lower - upper)


@_compiled
def _cost(images, view, others, camera, to_other, x, y, d, nx, ny, nz, patch):
    """1 - correlation of the patch around pixel (x, y) on a plane."""
    height, width = images.shape[1:]
    fx, fy, cx, cy = camera
    reach = _HALF * _STEP
    if x < reach or y < reach or x >= width - reach or y >= height - reach:
        return NO_COST
    offset = d * (nx * (x + 0.5 - cx) * fx + ny * (y + 0.5 - cy) * fy + nz)
    total, squares, count = 0.0, 0.0, 0
    for v in range(-reach, reach + 1, _STEP):
        for u in range(-reach, reach + 1, _STEP):
            value = images[view, y + v, x + u]
            patch[count] = value
            total += value
            squares += value * value
            count += 1
    variance = squares / count - (total / count) ** 2
    first, second = NO_COST, NO_COST
    for i in range(len(others)):
        image, P = images[others[i]], to_other[i]
        sums, sums2, products, k = 0.0, 0.0, 0.0, 0
        for v in range(-reach, reach + 1, _STEP):
            for u in range(-reach, reach + 1, _STEP):
                rx, ry = (x + u + 0.5 - cx) * fx, (y + v + 0.5 - cy) * fy
                z = offset / (nx * rx + ny * ry + nz)
                px = z * (P[0, 0] * rx + P[0, 1] * ry + P[0, 2]) + P[0, 3]
                py = z * (P[1, 0] * rx + P[1, 1] * ry + P[1, 2]) + P[1, 3]
                pz = z * (P[2, 0] * rx + P[2, 1] * ry + P[2, 2]) + P[2, 3]
                value = np.float32(-1)
                if pz > 1e-6:
                    value = _sample(image, px / pz, py / pz)
                if value < 0:
                    break
                sums += value
                sums2 += value * value
                products += value * patch[k]
                k += 1
            if value < 0:
                break
        if k < count:
            continue
        other = sums2 / count - (sums / count) ** 2
        shared = products / count - (total / count) * (sums / count)
        cost = 1 - shared / sqrt((variance + _FLAT) * (max(other, 0.0) + _FLAT))
        if cost < first:
            first, second = cost, first
        elif cost < second:
            second = cost
    return 0.5 * (first + second)


@_compiled
def _random(state):
    """A number in [0, 1)."""
    state[0] = state[0] * np.uint64(6364136223846793005) + np.uint64(
        1442695040888963407
    )
    return np.float64(state[0] >> np.uint64(40)) / 16777216.0


@_compiled
def _ray(camera, x, y):
    """Direction at a pixel's centre, of depth one, and its length."""
    fx, fy, cx, cy = camera
    rx, ry = (x + 0.5 - cx) * fx, (y + 0.5 - cy) * fy
    return rx, ry, sqrt(rx * rx + ry * ry + 1)


@_compiled
def _match(
    images, view, others, camera, to_other, near, far,
    depth, normal, cost, grid, sweeps, seed,
):  # fmt: skip
    height, width = depth.shape
    patch = np.empty((2 * _HALF + 1) ** 2, np.float32)
    state = np.empty(1, np.uint64)
    state[0] = np.uint64(seed * 7919 + 1)
    first = grid // 2
    for row in range(height):
        for column in range(width):
            low, high = near[row, column], far[row, column]
            if high <= low:
                continue
            x, y = column * grid + first, row * grid + first
            rx, ry, length = _ray(camera, x, y)
            a = -rx / length + 1.2 * (_random(state) - 0.5)
            b = -ry / length + 1.2 * (_random(state) - 0.5)
            c = -1 / length
            size = sqrt(a * a + b * b + c * c)
            d = low + (high - low) * _random(state)
            depth[row, column] = d
            normal[row, column, 0] = a / size
            normal[row, column, 1] = b / size
            normal[row, column, 2] = c / size
            cost[row, column] = _cost(
                images, view, others, camera, to_other,
                x, y, d, a / size, b / size, c / size, patch,
            )  # fmt: skip
    for sweep in range(sweeps):
        forth = sweep % 2 == 0
        ahead = 1 if forth else -1
        for i in range(height):
            row = i if forth else height - 1 - i
            for j in range(width):
                column = j if forth else width - 1 - j
                low, high = near[row, column], far[row, column]
                if high <= low:
                    continue
                x, y = column * grid + first, row * grid + first
                rx, ry, length = _ray(camera, x, y)
                best = cost[row, column]
                for trial in range(4):
                    if trial < 2:  # The planes of two neighbours.
                        r = row - ahead * (trial == 1)
                        q = column - ahead * (trial == 0)
                        if r < 0 or q < 0 or r >= height or q >= width:
                            continue
                        if depth[r, q] <= 0:
                            continue
                        a, b, c = normal[r, q, 0], normal[r, q, 1], normal[r, q, 2]
                        qx, qy, _ = _ray(camera, q * grid + first, r * grid + first)
                        d = depth[r, q] * (a * qx + b * qy + c)
                        d /= a * rx + b * ry + c
                    else:  # Its own, varied: coarsely, then finely.
                        size = 1.0 if trial == 2 else 0.3
                        turn = size * 0.6**sweep
                        move = 0.03 * (1.0 if trial == 2 else 0.2) * 0.5**sweep
                        d = depth[row, column] + (2 * _random(state) - 1) * move
                        a = normal[row, column, 0] + turn * (_random(state) - 0.5)
                        b = normal[row, column, 1] + turn * (_random(state) - 0.5)
                        c = normal[row, column, 2] + turn * (_random(state) - 0.5)
                        size = sqrt(a * a + b * b + c * c)
                        a, b, c = a / size, b / size, c / size
                    if a * rx + b * ry + c > -_STEEPEST * length:
                        continue
                    if not (d >= low and d <= high):
                        continue
                    found = _cost(
                        images, view, others, camera, to_other,
                        x, y, d, a, b, c, patch,
                    )  # fmt: skip
                    if found < best:
                        best = found
                        depth[row, column] = d
                        normal[row, column, 0] = a
                        normal[row, column, 1] = b
                        normal[row, column, 2] = c
                cost[row, column] = best
