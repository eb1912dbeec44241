"""The rigid motion between points: found, not guessed, and a number in any case."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from npga_jax.core.rigid import rigid_motion

POINTS = np.random.default_rng(0).normal((0, -0.06, 0.03), 0.02, (30, 3))
KINDS = [(np.float64, 1e-12), (jnp.float32, 1e-5)]


def arrays(kind, *values):
    make = np.asarray if kind is np.float64 else jnp.asarray
    return [make(value, kind) for value in values]


@pytest.mark.parametrize(("kind", "tolerance"), KINDS)
@pytest.mark.parametrize("angle", [0.0, 0.3, 3.0])
def test_a_rigid_motion_is_found_again(kind, tolerance, angle):
    turn = Rotation.from_rotvec(angle * np.array([0.6, 0.0, 0.8])).as_matrix()
    moved = POINTS @ turn.T + np.array([0.01, -0.02, 0.03])
    points, moved = arrays(kind, POINTS, moved)
    rotation, translation = rigid_motion(points, moved)
    assert type(rotation) is type(points) and rotation.dtype == kind
    np.testing.assert_allclose(rotation, turn, atol=tolerance)
    np.testing.assert_allclose(translation, [0.01, -0.02, 0.03], atol=0.1 * tolerance)


@pytest.mark.parametrize(("kind", "tolerance"), KINDS)
def test_a_reflection_is_answered_with_a_rotation(kind, tolerance):
    rotation, _ = rigid_motion(*arrays(kind, POINTS, POINTS * [-1, 1, 1]))
    assert np.linalg.det(rotation) == pytest.approx(1.0, abs=tolerance)


@pytest.mark.parametrize("kind", [np.float64, jnp.float32])
def test_points_that_coincide_are_shifted_and_not_turned(kind):
    here, there = arrays(kind, np.zeros((8, 3)), np.full((8, 3), 0.01))
    motion = rigid_motion if kind is np.float64 else jax.jit(rigid_motion)
    rotation, translation = motion(here, there)
    np.testing.assert_allclose(rotation, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(translation, 0.01, atol=1e-7)


def test_products_are_exact_on_platforms_that_would_round_them():
    points = jnp.zeros((8, 3))
    with jax.default_matmul_precision("bfloat16"):
        traced = jax.jit(rigid_motion).trace(points, points)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products and all("HIGHEST, HIGHEST" in line for line in products)
