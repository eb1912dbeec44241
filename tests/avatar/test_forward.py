"""F: its network written out, what it leaves alone, and what trains it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from npga_jax.avatar.bones import JAW, SKULL
from npga_jax.avatar.detail import HEAD_RADIUS
from npga_jax.avatar.forward import (
    MOTION_SCALE,
    NECK_HEIGHTS,
    NUM_CHIN,
    displacement,
    forward_motion,
    frozen_motion,
    init_forward,
    jaw_motion,
    with_chin,
)
from npga_jax.distillation.distill import pose_points

N, F, E, OCTAVES = 7, 3, 4, 2
_rng = np.random.default_rng(0)
MEANS = _rng.uniform(-0.09, 0.09, (N, 3)).astype(np.float32)
FEATURES = _rng.normal(size=(N, F)).astype(np.float32)
SKIN = np.zeros((N, 2), np.float32)
CODES = _rng.normal(size=(3, E)).astype(np.float32)
CODE_MEAN = _rng.normal(size=E).astype(np.float32)
CODE_STD = _rng.uniform(0.5, 2.0, E).astype(np.float32)
CHIN = _rng.uniform(-0.02, 0.02, (NUM_CHIN, 3)).astype(np.float32)


def make_forward():
    return init_forward(
        jax.random.key(0),
        num_features=F,
        code_mean=CODE_MEAN,
        code_std=CODE_STD,
        hidden=16,
        layers=3,
        octaves=OCTAVES,
    )


@pytest.fixture(scope="module")
def moving():
    """Weights whose output is not zero; features are not read yet."""
    params = make_forward()
    shape = params["out_w"].shape
    params = with_chin(params, CHIN)
    return params | {"out_w": jnp.asarray(_rng.normal(0, 0.3, shape), jnp.float32)}


def motion(params, means=MEANS, features=FEATURES, expr=CODES[0]):
    out = forward_motion(
        params, jnp.asarray(means), features, SKIN, expr, octaves=OCTAVES
    )
    return np.asarray(out - means)


def test_before_training_nothing_moves():
    np.testing.assert_array_equal(motion(with_chin(make_forward(), None)), 0)


def test_motion_is_a_network_that_reads_the_code_in_every_layer(moving):
    read = moving | {"features_w": jnp.asarray(_rng.normal(size=(F, 16)), jnp.float32)}
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), read)
    x = MEANS.astype(np.float64) / HEAD_RADIUS
    waves = [f(np.pi * 2**k * x) for f in (np.sin, np.cos) for k in range(OCTAVES)]
    low, high = NECK_HEIGHTS
    share = np.clip((MEANS[:, 1] - low) / (high - low), 0, 1)
    share = share**2 * (3 - 2 * share)
    for expr in CODES:
        code = (expr - CODE_MEAN) / CODE_STD
        first, *rest = p["layers"]
        h = (
            np.concatenate([x, *waves], axis=1) @ first["w"]
            + FEATURES @ p["features_w"]
        )
        h = np.maximum(h + code @ first["code_w"] + first["b"], 0)
        for layer in rest:
            h = np.maximum(h @ layer["w"] + code @ layer["code_w"] + layer["b"], 0)
        expected = share[:, None] * MOTION_SCALE * (h @ p["out_w"])
        np.testing.assert_allclose(motion(read, expr=expr), expected, atol=2e-7)
    assert np.abs(expected).max() > 1e-3


def test_points_of_their_own_for_each_code(moving):
    points = _rng.uniform(-0.09, 0.09, (len(CODES), N, 3)).astype(np.float32)
    together = displacement(moving, points, None, CODES, octaves=OCTAVES)
    for found, own, expr in zip(together, points, CODES, strict=True):
        alone = motion(moving, means=own, features=None, expr=expr)
        np.testing.assert_allclose(found, alone, atol=1e-7)


def test_several_codes_at_once_are_the_codes_one_by_one(moving):
    together = pose_points(moving, jnp.asarray(MEANS), CODES, octaves=OCTAVES)
    for posed, expr in zip(np.asarray(together), CODES, strict=True):
        alone = MEANS + motion(moving, features=None, expr=expr)
        np.testing.assert_allclose(posed, alone, atol=1e-7)


def test_nothing_moves_below_the_neck_and_all_of_it_above(moving):
    def at(height):
        """How far a column of points moves, its neck held at this height or not."""
        points = MEANS.copy()
        points[:, 1] = height
        return displacement(moving, points, None, CODES[0], octaves=OCTAVES)

    low, high = NECK_HEIGHTS
    for height in (low, low - 0.001, low - 1.0):
        np.testing.assert_array_equal(at(height), 0)
    unfaded, above = (
        displacement(
            moving, np.float32([[0.02, y, 0.03]]), None, CODES[0], octaves=OCTAVES
        )
        for y in (high, high + 1e-6)
    )
    np.testing.assert_allclose(unfaded, above, atol=1e-6)
    # No step anywhere: a millimetre changes little beside the whole motion.
    heights = np.linspace(low - 0.002, high + 0.002, 25)
    along = np.stack([np.asarray(at(h)) for h in heights])
    assert np.abs(np.diff(along, axis=0)).max() < 0.2 * np.abs(along).max()


def test_features_say_nothing_at_first_and_can_learn_to(moving):
    np.testing.assert_array_equal(motion(moving), motion(moving, features=None))
    np.testing.assert_array_equal(motion(moving), motion(moving, features=9 * FEATURES))

    def total(params):
        out = forward_motion(params, MEANS, FEATURES, SKIN, CODES[0], octaves=OCTAVES)
        return jnp.sum(out**2)

    assert np.abs(jax.grad(total)(moving)["features_w"]).max() > 1e-6


def test_what_is_measured_is_not_trained_and_centres_move_as_a_whole(moving):
    def total(params, means):
        out = forward_motion(params, means, FEATURES, SKIN, CODES[0], octaves=OCTAVES)
        return jnp.sum(out)

    by_params, by_means = jax.grad(total, argnums=(0, 1))(moving, jnp.asarray(MEANS))
    np.testing.assert_array_equal(by_params["code_mean"], 0)
    np.testing.assert_array_equal(by_params["code_std"], 0)
    assert np.abs(by_params["out_w"]).max() > 0
    np.testing.assert_array_equal(by_means, 1)


def test_frozen_motion_has_no_gradient_to_its_weights_and_is_blind(moving):
    read = moving | {"features_w": jnp.ones((F, 16))}
    frozen = frozen_motion(read, MEANS, FEATURES, SKIN, CODES[0], octaves=OCTAVES)
    np.testing.assert_allclose(frozen - MEANS, motion(read, features=None), atol=1e-7)
    assert np.abs(motion(read) - motion(read, features=None)).max() > 1e-4

    def total(params):
        out = frozen_motion(params, MEANS, FEATURES, SKIN, CODES[0], octaves=OCTAVES)
        return jnp.sum(out)

    for leaf in jax.tree.leaves(jax.grad(total)(read)):
        np.testing.assert_array_equal(leaf, 0)


def test_skull_holds_and_jaw_carries_what_is_bound_to_them(moving):
    bindings = SKIN.copy()
    bindings[0, SKULL] = bindings[1, JAW] = 1.0
    bindings[2] = 0.5, 0.25

    def moved(bindings):
        return np.asarray(
            forward_motion(moving, MEANS, FEATURES, bindings, CODES[0], octaves=OCTAVES)
        )

    by_skin, bound = moved(SKIN), moved(bindings)
    rotation, translation = jaw_motion(moving, CODES[0], octaves=OCTAVES)
    by_jaw = MEANS @ np.asarray(rotation).T + np.asarray(translation)
    np.testing.assert_allclose(bound[0], MEANS[0], atol=1e-6)
    np.testing.assert_allclose(bound[1], by_jaw[1], atol=1e-6)
    mixed = 0.5 * MEANS[2] + 0.25 * by_jaw[2] + 0.25 * by_skin[2]
    np.testing.assert_allclose(bound[2], mixed, atol=1e-6)
    np.testing.assert_allclose(bound[3:], by_skin[3:], atol=1e-6)
    assert np.abs(by_jaw - MEANS).max() > 1e-4


def test_jaw_motion_is_the_rigid_part_of_what_happens_to_the_chin(moving):
    moved = CHIN + displacement(moving, CHIN, None, CODES[0], octaves=OCTAVES)
    rotation, translation = jaw_motion(moving, CODES[0], octaves=OCTAVES)
    best = np.sum((CHIN @ np.asarray(rotation).T + translation - moved) ** 2)
    for axis in range(3):
        turn = np.asarray(Rotation.from_rotvec(1e-2 * np.eye(3)[axis]).as_matrix())
        for other in (turn, turn.T):
            turned = CHIN @ (np.asarray(rotation) @ other).T
            turned = turned + np.mean(moved - turned, axis=0)
            assert np.sum((turned - moved) ** 2) > best

    def total(params):
        return sum(jnp.sum(x) for x in jaw_motion(params, CODES[0], octaves=OCTAVES))

    for leaf in jax.tree.leaves(jax.grad(total)(moving)):
        np.testing.assert_array_equal(leaf, 0)
