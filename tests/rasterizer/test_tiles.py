"""Depth order and tile lists against plain numpy, at and beyond their capacity."""

import itertools
from functools import partial

import jax
import numpy as np
import pytest

from npga_jax.rasterizer import tiles

from .scenes import (
    Case,
    assert_images_close,
    cameras,
    cloud,
    quick_jit,
    render,
    render_and_grad,
    render_fn,
    without,
)

INT32_MAX = np.iinfo(np.int32).max


def _lists(means2d, radii, depths, **options):
    columns = (np.float32(x) for x in (means2d, radii, depths))
    lists = quick_jit(partial(tiles.isect_tiles, **options))(*columns)
    return jax.tree.map(np.asarray, lists)


def _brute_force(means2d, radii, depths, *, width, height, tile_size):
    """For each tile, the Gaussians whose box holds one of its pixel centres."""
    order = np.argsort(np.float32(depths), kind="stable")
    boxes = {}
    for i in order[radii[order, 0] > 0]:
        (u, v), (ru, rv) = means2d[i], radii[i]
        x = [p for p in range(width) if abs(p + 0.5 - u) <= ru]
        y = [p for p in range(height) if abs(p + 0.5 - v) <= rv]
        touched = {(q // tile_size, p // tile_size) for p in x for q in y}
        for tile in touched:
            boxes.setdefault(tile, []).append(i)
    rows, columns = -(-height // tile_size), -(-width // tile_size)
    return [boxes.get((r, c), []) for r in range(rows) for c in range(columns)]


def _ellipses(n, width, height, seed=0):
    """Random boxes; every eighth Gaussian is culled, some lie off the image."""
    rng = np.random.default_rng(seed)
    means2d = rng.uniform(-0.3, 1.3, (n, 2)) * [width, height]
    radii = rng.exponential(5.0, (n, 2)) + 0.05
    radii[::8] = 0.0
    depths = rng.integers(1, n // 2, n) / 7.0  # With ties.
    return np.float32(means2d), np.float32(radii), np.float32(depths)


def _split(lists):
    bounds = itertools.pairwise(lists.isect_offsets)
    return [list(lists.flatten_ids[a:b]) for a, b in bounds]


@pytest.mark.parametrize("n", [1, 2, 700, 70_000])
def test_depth_order_is_a_stable_float32_sort(n):
    rng = np.random.default_rng(n)
    # Many depths share their leading bits; 70,000 of them need three digit passes.
    depths = np.float32(1.0 + rng.uniform(0, 1e-4, n))
    depths[rng.integers(0, n, n // 4)] = depths[0]
    depths[: n // 8] *= np.float32(1e9)
    visible = rng.random(n) < 0.9
    order = np.asarray(quick_jit(tiles.depth_order)(depths, visible))
    expected = np.argsort(np.where(visible, depths, np.inf), kind="stable")
    np.testing.assert_array_equal(order, expected)


@pytest.mark.parametrize("size", [(45, 37, 8), (70, 100, 16), (1, 1, 8), (3, 40, 16)])
def test_tile_lists_equal_a_brute_force_enumeration(size):
    options = dict(zip(("width", "height", "tile_size"), size, strict=True))
    scene = _ellipses(90, *size[:2])
    lists = _lists(*scene, **options, max_isects=4096)
    expected = _brute_force(*scene, **options)
    assert lists.num_isects == sum(map(len, expected)) > 0
    assert lists.num_dropped == 0
    assert _split(lists) == expected


def test_wide_keys_give_the_same_lists(monkeypatch):
    scene = _ellipses(90, 45, 37)
    options = dict(width=45, height=37, tile_size=8, max_isects=4096)
    narrow = _lists(*scene, **options)
    # 29 bits each for rank and tile do not fit into one 32-bit key, and leave digits of
    # three bits to the passes that sort by tile.
    monkeypatch.setattr(tiles, "index_bits", lambda n: 29)
    wide = _lists(*scene, **options)
    np.testing.assert_array_equal(narrow.isect_offsets, wide.isect_offsets)
    used = narrow.isect_offsets[-1]
    np.testing.assert_array_equal(narrow.flatten_ids[:used], wide.flatten_ids[:used])


@pytest.mark.parametrize("n", [1, 2, 3, 255, 256, 257, 65_536, 65_537])
def test_index_bits_hold_every_index(n):
    bits = tiles.index_bits(n)
    assert n - 1 < 2**bits
    assert bits == 1 or n - 1 >= 2 ** (bits - 1)


def test_overflow_drops_the_farthest_and_counts_them():
    means2d, radii, depths = _ellipses(90, 45, 37)
    options = dict(width=45, height=37, tile_size=8)
    capacity = 70
    full = _split(_lists(means2d, radii, depths, **options, max_isects=4096))
    lists = _lists(means2d, radii, depths, **options, max_isects=capacity)
    wanted = sum(map(len, full))
    assert lists.num_isects == wanted
    assert lists.num_dropped == wanted - capacity > 0
    kept = _split(lists)
    assert sum(map(len, kept)) == capacity
    # Each list is the front of the full one, and nothing kept lies behind a loss.
    dropped = [i for a, b in zip(full, kept, strict=True) for i in a[len(b) :]]
    assert all(a[: len(b)] == b for a, b in zip(full, kept, strict=True))
    farthest_kept = max(depths[i] for b in kept for i in b)
    assert farthest_kept <= min(depths[i] for i in dropped)


def test_overflowing_image_is_that_of_the_nearest():
    scene = cloud()
    full = Case(render_depth=True)
    out, _ = render_and_grad(full, scene)
    viewmats, _ = cameras(1, full.width, full.height)
    depth = scene["means"] @ viewmats[0, 2, :3] + viewmats[0, 2, 3]
    farther_half = np.argsort(depth)[32:]
    nearest = without(scene, farther_half)
    capacity = int(render_and_grad(full, nearest)[0].num_isects[0])
    small = full._replace(max_isects=capacity)
    result = render(small, scene)
    assert result.num_isects == out.num_isects
    assert result.num_dropped == out.num_isects - capacity > 0
    np.testing.assert_array_equal(result.colors, render(small, nearest).colors)
    tiny = render(full._replace(max_isects=1), scene)
    assert tiny.num_dropped == out.num_isects - 1
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(tiny))


def test_count_saturates_instead_of_wrapping():
    # 4096 Gaussians that each cover a million tiles: 2 ** 32 intersections.
    n, side, capacity = 4096, 8192, 1000
    depths = np.arange(n, 0, -1)
    lists = _lists(
        np.full((n, 2), side / 2),
        np.full((n, 2), side),
        depths,
        width=side,
        height=side,
        tile_size=8,
        max_isects=capacity,
    )
    assert lists.num_isects == INT32_MAX
    assert lists.num_dropped == INT32_MAX - capacity
    assert np.all(lists.flatten_ids == n - 1)
    np.testing.assert_array_equal(
        lists.isect_offsets, np.minimum(np.arange(1024**2 + 1), capacity)
    )


def test_nothing_visible_leaves_exactly_the_background():
    case = Case()
    out, grads = render_and_grad(case, without(cloud(), slice(None)))
    background = np.float32(np.linspace(0.2, 0.9, 3))
    assert np.all(out.colors == background)
    assert np.all(out.alphas == 0)
    assert np.all(out.depths == 0)
    assert out.num_isects == out.num_dropped == out.num_invalid == 0
    assert all(np.all(g == 0) for g in grads.values())


@pytest.mark.parametrize("opacity", [0.5, 0.02])
def test_one_gaussian_covers_the_whole_image(opacity):
    scene = without(cloud(), slice(None))
    viewmats, _ = cameras(1, 45, 37)
    scene["means"][9] = np.linalg.inv(viewmats[0])[:3] @ [0.0, 0.0, 3.0, 1.0]
    scene["scales"][9], scene["opacities"][9] = 1e3, opacity
    out, _ = render_and_grad(Case(), scene)
    background = np.float32(np.linspace(0.2, 0.9, 3))
    np.testing.assert_allclose(out.alphas, opacity, atol=1e-5)
    np.testing.assert_allclose(out.depths, 3.0, atol=1e-5)
    expected = opacity * scene["colors"][9] + (1 - opacity) * background
    np.testing.assert_allclose(
        out.colors, np.broadcast_to(expected, out.colors.shape), atol=1e-5
    )
    assert out.num_isects == 6 * 5


def test_an_image_may_be_one_pixel():
    scene, case = cloud(), Case(1, 1)
    view = cameras(1, 45, 37)
    expected = quick_jit(render_fn(case, reference=True))(scene, *view)
    out = render(case, scene, view)
    assert out.colors.shape == (1, 1, 1, 3)
    assert 0.1 < expected.alphas[0, 0, 0] < 1
    assert_images_close(out, expected)
