"""What carries eyeballs and teeth, and how gradients pass through it."""

import jax
import numpy as np
from scipy.spatial.transform import Rotation

from npga_jax.avatar.bones import JAW, SKULL, bind

_rng = np.random.default_rng(0)
POINTS = _rng.normal(0, 0.02, (30, 3)).astype(np.float32) + np.float32([0, -0.06, 0.03])


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
