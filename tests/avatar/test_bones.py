"""The rigid motion between points: found, not guessed, and a number in any case."""

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from npga_jax.avatar.bones import JAW, SKULL, bind, fit_rigid_motion

_rng = np.random.default_rng(0)
POINTS = _rng.normal(0, 0.02, (30, 3)).astype(np.float32) + np.float32([0, -0.06, 0.03])


@pytest.mark.parametrize("angle", [0.0, 0.3, 3.0])
def test_a_rigid_motion_is_found_again(angle):
    turn = Rotation.from_rotvec(angle * np.array([0.6, 0.0, 0.8])).as_matrix()
    moved = POINTS @ turn.T + np.array([0.01, -0.02, 0.03])
    rotation, translation = fit_rigid_motion(POINTS, moved.astype(np.float32))
    np.testing.assert_allclose(rotation, turn, atol=1e-5)
    np.testing.assert_allclose(translation, [0.01, -0.02, 0.03], atol=1e-6)


def test_a_reflection_is_answered_with_a_rotation():
    rotation, _ = fit_rigid_motion(POINTS, POINTS * np.float32([-1, 1, 1]))
    assert np.linalg.det(rotation) == pytest.approx(1.0, abs=1e-5)


def test_points_that_coincide_are_shifted_and_not_turned():
    here, there = np.zeros((8, 3), np.float32), np.full((8, 3), 0.01, np.float32)
    rotation, translation = jax.jit(fit_rigid_motion)(here, there)
    np.testing.assert_allclose(rotation, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(translation, 0.01, atol=1e-7)


def test_bound_points_pass_their_gradient_through_what_carries_them():
    turn = np.float32(Rotation.from_rotvec([0.5, 0, 0]).as_matrix())
    jaw = (turn, np.zeros(3, np.float32))
    bindings = np.zeros((30, 2), np.float32)
    bindings[:10, SKULL] = bindings[10:20, JAW] = 1.0

    def heights(means):
        return bind(means, means + 0.01, bindings, jaw)[:, 1].sum()

    gradient = jax.grad(heights)(POINTS)
    np.testing.assert_allclose(gradient[:10], np.tile([[0, 1, 0]], (10, 1)), atol=1e-6)
    np.testing.assert_allclose(gradient[10:20], np.tile(turn[1], (10, 1)), atol=1e-6)
    np.testing.assert_allclose(gradient[20:], np.tile([[0, 1, 0]], (10, 1)), atol=1e-6)
