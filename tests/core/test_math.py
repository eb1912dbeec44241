"""Quaternions against scipy and explicit formulas; guards at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from npga_jax.core import math

_rng = np.random.default_rng(0)
QUATS = np.float32(_rng.normal(size=(50, 4)))


_quats = jax.jit(jax.vmap(math.rotmat_to_quat))
_quat_jacobians = jax.jit(jax.vmap(jax.jacobian(math.rotmat_to_quat)))
_rotmat_jacobian = jax.jit(jax.jacobian(math.quat_to_rotmat))


def _scipy(quats):
    return Rotation.from_quat(np.roll(quats, -1, axis=-1))


def test_quat_to_rotmat_matches_scipy_for_any_norm():
    scaled = QUATS * np.float32(10 ** _rng.uniform(-4, 4, (50, 1)))
    expected = _scipy(QUATS).as_matrix()
    np.testing.assert_allclose(math.quat_to_rotmat(scaled), expected, atol=1e-6)
    np.testing.assert_allclose(math.quat_to_rotmat(-scaled), expected, atol=1e-6)


def test_quat_to_rotmat_of_a_quarter_turn():
    half = np.sqrt(0.5)
    np.testing.assert_allclose(
        math.quat_to_rotmat(jnp.array([half, 0, 0, half])),
        [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
        atol=1e-6,
    )


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-10, 1e-7])
def test_tiny_quaternions_are_the_identity_with_finite_gradients(size):
    quat = jnp.full(4, size)
    np.testing.assert_allclose(math.quat_to_rotmat(quat), np.eye(3), atol=1e-6)
    assert np.all(np.isfinite(_rotmat_jacobian(quat)))


def test_gradient_of_quat_to_rotmat_ignores_the_norm():
    quat, weights = jnp.array(QUATS[0]), jnp.array(_rng.normal(size=(3, 3)))
    grad = jax.grad(lambda q: jnp.sum(math.quat_to_rotmat(q) * weights))(quat)
    np.testing.assert_allclose(grad @ quat, 0.0, atol=1e-5)


def test_quat_multiply_composes_rotations():
    a, b = QUATS[:25], QUATS[25:]
    product = math.quat_multiply(a, b)
    expected = (_scipy(a) * _scipy(b)).as_matrix()
    np.testing.assert_allclose(math.quat_to_rotmat(product), expected, atol=1e-6)
    i, j, k = np.eye(4)[1:]
    np.testing.assert_array_equal(math.quat_multiply(i, j), k)
    np.testing.assert_array_equal(math.quat_multiply(j, i), -k)


@pytest.mark.parametrize("angle", [0.0, 1e-4, 1.0, 3.0, np.pi - 1e-4, np.pi])
def test_rotmat_to_quat_inverts_for_every_axis_and_angle(angle):
    axes = np.concatenate([np.eye(3), -np.eye(3), _rng.normal(size=(14, 3))])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    matrices = np.float32(Rotation.from_rotvec(angle * axes).as_matrix())
    quats = _quats(matrices)
    np.testing.assert_allclose(np.linalg.norm(quats, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(math.quat_to_rotmat(quats), matrices, atol=2e-6)
    assert np.all(np.isfinite(_quat_jacobians(matrices)))


def test_safe_normalize_gives_unit_vectors_and_survives_zero():
    vectors = np.float32(_rng.normal(size=(20, 3)))
    expected = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(math.safe_normalize(vectors), expected, rtol=1e-6)
    zero = jnp.zeros(3)
    assert np.all(math.safe_normalize(zero) == 0)
    assert np.all(np.isfinite(jax.jacobian(math.safe_normalize)(zero)))


def test_logit_inverts_the_sigmoid_and_is_finite_at_the_ends():
    x = jnp.linspace(-9, 9, 19)
    np.testing.assert_allclose(math.logit(jax.nn.sigmoid(x)), x, atol=2e-3)
    ends = jnp.array([0.0, 1.0])
    assert np.all(np.isfinite(math.logit(ends)))
    assert np.all(np.isfinite(jax.vmap(jax.grad(math.logit))(ends)))


def test_what_is_clipped_feels_the_gradient_that_leads_back():
    x = jnp.array([-2.0, -2.0, 0.5, 0.5, 3.0, 3.0])
    pull = jnp.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])  # Descent goes against it.

    def loss(x):
        return jnp.sum(pull * math.clip_with_way_back(x, 0.0, 1.0))

    np.testing.assert_array_equal(
        math.clip_with_way_back(x, 0.0, 1.0), jnp.clip(x, 0.0, 1.0)
    )
    np.testing.assert_array_equal(jax.grad(loss)(x), [0, -1, 1, -1, 1, 0])
    below = jax.grad(lambda x: jnp.sum(pull * math.clip_with_way_back(x, 0.0)))(x)
    np.testing.assert_array_equal(below, [0, -1, 1, -1, 1, -1])
