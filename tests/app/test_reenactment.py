"""Codes and head motion on their way from one person to another."""

import numpy as np

from npga_jax.app.reenactment import (
    follow_motion,
    most_neutral_row,
    relative_codes,
    smooth_codes,
    there_and_back,
)

rng = np.random.default_rng(0)
CODES = rng.normal(size=(6, 3)).astype(np.float32)


def make_pose(scale=1.0):
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    pose = np.eye(4)
    pose[:3, :3] = scale * rotation * np.sign(np.linalg.det(rotation))
    pose[:3, 3] = rng.normal(size=3)
    return pose.astype(np.float32)


def test_smoothing_is_a_recursion_from_the_first_frame_on():
    np.testing.assert_array_equal(smooth_codes(CODES, 0.0), CODES)
    still = np.repeat(CODES[:1], 5, axis=0)
    np.testing.assert_allclose(smooth_codes(still, 0.9), still, rtol=1e-6)
    jump = np.float32([[0], [1], [1], [1]])
    np.testing.assert_allclose(smooth_codes(jump, 0.5)[:, 0], [0, 0.5, 0.75, 0.875])
    before = CODES.copy()
    smooth_codes(CODES, 0.5)
    np.testing.assert_array_equal(CODES, before)


def test_the_drivers_neutral_becomes_the_targets():
    codes = CODES.copy()
    codes[2] *= 0.01
    assert most_neutral_row(codes) == 2
    neutral = np.float32([1, 2, 3])
    moved = relative_codes(codes, neutral)
    np.testing.assert_allclose(moved[2], neutral)
    np.testing.assert_allclose(moved[4] - moved[1], codes[4] - codes[1], atol=1e-6)


def test_motion_is_followed_in_the_heads_own_frame():
    start, poses = make_pose(1.1), np.stack([make_pose(0.9) for _ in range(3)])
    moved = follow_motion(start, poses)
    np.testing.assert_allclose(moved[0], start, atol=1e-5)
    for ours, theirs in zip(moved, poses, strict=True):
        own = np.linalg.solve(start, ours)
        driver = np.linalg.solve(poses[0], theirs)
        np.testing.assert_allclose(own, driver, atol=1e-4)
    # A world that is set up another way does not matter.
    world = make_pose()
    np.testing.assert_allclose(follow_motion(start, world @ poses), moved, atol=1e-4)
    still = follow_motion(start, np.repeat(poses[:1], 3, axis=0))
    np.testing.assert_allclose(still, np.stack([start] * 3), atol=1e-5)


def test_there_and_back_never_jumps():
    np.testing.assert_array_equal(there_and_back(3, 8), [0, 1, 2, 1, 0, 1, 2, 1])
    np.testing.assert_array_equal(there_and_back(1, 3), [0, 0, 0])
    assert np.abs(np.diff(there_and_back(5, 40))).max() == 1
