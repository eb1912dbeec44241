import types
import weakref
from functools import partial

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.data.capture import Driving, PointCloud, Timestep
from npga_jax.training.initial_points import (
    choose_rows,
    gather_points,
    most_neutral,
    most_varied,
    neighbour_spacing,
    to_head_frame,
)
from tests import small_scene

TIMESTEPS = tuple(Timestep(i, "EXP", i) for i in range(5))
EXPRS = np.array([[0.5, 0], [0, -2], [0.1, 0], [-0.2, 0.1], [0, 0]], np.float32)
POSES = [small_scene.make_pose(1.7, seed=i) for i in range(5)]
HEAD_POINTS = [small_scene.ball_points(50, seed=i) for i in range(5)]
RGB = np.random.default_rng(0).uniform(size=(5, 50, 3)).astype(np.float32)
WITHOUT_CLOUD = 4


def make_capture(clouds=None):
    """Points of each frame in its own pose; one neutral frame has none."""

    def points(timestep):
        if clouds is not None:
            return clouds.get(timestep.index)
        if timestep.index == WITHOUT_CLOUD:
            return None
        pose = POSES[timestep.index].astype(np.float64)
        xyz = HEAD_POINTS[timestep.index] @ pose[:3, :3].T + pose[:3, 3]
        return PointCloud(xyz.astype(np.float32), RGB[timestep.index], None)

    return types.SimpleNamespace(
        subject="074",
        driving=lambda t: Driving(EXPRS[t.index], POSES[t.index]),
        points=points,
    )


def test_smallest_codes_come_first_and_frames_without_points_are_passed_over():
    capture = make_capture()
    chosen = most_neutral(capture, TIMESTEPS, 3)
    assert [t.index for t in chosen] == [2, 3, 0]
    assert len(most_neutral(capture, TIMESTEPS, 99)) == 4


def test_the_most_different_codes_come_next_and_none_twice():
    capture = make_capture()
    neutral = most_neutral(capture, TIMESTEPS, 1)
    scaled = EXPRS / EXPRS.std(axis=0)
    left = {0, 1, 3}  # Frame 2 is chosen, frame 4 has no cloud.
    expected, known = [], [scaled[2]]
    while left:
        best = max(
            left, key=lambda i: min(np.linalg.norm(scaled[i] - k) for k in known)
        )
        expected.append(best)
        known.append(scaled[best])
        left.remove(best)
    for count in (0, 1, 2, 3, 9):
        found = most_varied(capture, TIMESTEPS, neutral, count)
        assert [t.index for t in found] == expected[:count]
    assert most_varied(capture, TIMESTEPS[2:3], neutral, 5) == []


def test_no_points_at_all_are_an_error():
    with pytest.raises(InputError, match="074 has no point cloud"):
        most_neutral(make_capture({}), TIMESTEPS, 3)


def test_points_come_into_the_head_frame():
    capture = make_capture()
    for timestep in TIMESTEPS[:3]:
        points = to_head_frame(capture.points(timestep), POSES[timestep.index])
        np.testing.assert_allclose(points, HEAD_POINTS[timestep.index], atol=1e-6)


def test_gathered_points_keep_their_places_and_colors():
    xyz, rgb, spacing, *_ = gather_points(
        make_capture(), TIMESTEPS[:2], max_points=1000, seed=0
    )
    expected = np.concatenate(HEAD_POINTS[:2])
    assert xyz.dtype == rgb.dtype == spacing.dtype == np.float32
    assert len(xyz) == len(rgb) == len(spacing)
    order = np.array([np.argmin(np.sum((expected - p) ** 2, axis=1)) for p in xyz])
    np.testing.assert_allclose(xyz, expected[order], atol=1e-6)
    np.testing.assert_array_equal(rgb, np.concatenate(RGB[:2])[order])
    assert len(xyz) >= 90
    np.testing.assert_allclose(spacing, neighbour_spacing(xyz), rtol=1e-5)


def test_stray_points_are_left_out():
    cloud = make_capture().points(TIMESTEPS[0])
    stray = np.float32([[5, 5, 5], [-3, 0, 0]])
    dirty = PointCloud(
        np.concatenate([stray, cloud.xyz]),
        np.concatenate([np.ones((2, 3), np.float32), cloud.rgb]),
        None,
    )
    xyz, *_ = gather_points(
        make_capture({0: dirty}), TIMESTEPS[:1], max_points=1000, seed=0
    )
    assert len(xyz) >= 45
    assert np.linalg.norm(xyz, axis=-1).max() < 0.11


def test_too_many_points_are_drawn_from_by_seed():
    draws = [
        gather_points(make_capture(), TIMESTEPS[:4], max_points=30, seed=seed)[0]
        for seed in (0, 0, 1)
    ]
    assert all(len(d) == 30 and len(np.unique(d, axis=0)) == 30 for d in draws)
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.any(draws[0] != draws[2])


def test_spacing_of_a_grid_is_its_step():
    grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), axis=-1).reshape(-1, 3)
    np.testing.assert_allclose(neighbour_spacing(0.01 * grid), 0.01, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 2])
def test_few_points_still_have_a_spacing(count):
    spacing = neighbour_spacing(np.arange(3.0 * count).reshape(count, 3))
    assert spacing.shape == (count,) and np.all(spacing > 0)


def test_points_that_coincide_make_no_outliers_of_all():
    cloud = PointCloud(np.zeros((20, 3), np.float32), np.ones((20, 3)), None)
    xyz, _, spacing, *_ = gather_points(
        make_capture({0: cloud}), TIMESTEPS[:1], max_points=1000, seed=0
    )
    assert len(xyz) == 20 and np.all(np.isfinite(spacing))


def test_a_draw_from_parts_is_that_from_their_union():
    counts = [5, 0, 40, 3]
    union = [(part, row) for part, count in enumerate(counts) for row in range(count)]
    for most in (1, 20, 48, 99):
        chosen = choose_rows(counts, most, seed=3)
        found = [(part, row) for part, rows in enumerate(chosen) for row in rows]
        expected = range(48)
        if most < 48:
            draw = np.random.default_rng(3).choice(48, most, replace=False)
            expected = np.sort(draw)
        assert found == [union[i] for i in expected]


def test_what_is_taken_back_to_canonical_space_is_what_was_drawn():
    taken = []

    def to_canonical(points, _):
        taken.append(len(points))
        return points, np.zeros((len(points), 2))

    gather = partial(gather_points, make_capture(), TIMESTEPS[:4], seed=1)
    all_points = gather(max_points=1000, to_canonical=to_canonical)
    taken.clear()
    few = gather(max_points=30, to_canonical=to_canonical)
    assert sum(taken) == len(few.means) == 30
    drawn = np.random.default_rng(1).choice(len(all_points.means), 30, replace=False)
    np.testing.assert_array_equal(few.means, all_points.means[np.sort(drawn)])
    np.testing.assert_array_equal(few.rgb, all_points.rgb[np.sort(drawn)])


def test_one_cloud_is_held_at_a_time():
    held, most = weakref.WeakSet(), []

    def points(timestep):
        xyz = HEAD_POINTS[timestep.index].astype(np.float32)
        cloud = PointCloud(xyz, RGB[timestep.index], None)
        held.add(cloud)
        most.append(len(held))
        return cloud

    capture = types.SimpleNamespace(
        points=points, driving=lambda t: Driving(EXPRS[t.index], np.eye(4))
    )
    gather_points(capture, TIMESTEPS[:4], max_points=30, seed=0)
    assert max(most) <= 2  # The one that is read, and the one before.
