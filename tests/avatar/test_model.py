import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.avatar.model import (
    MAX_SCALE,
    MIN_SCALE,
    deform_gaussians,
    head_viewmats,
    init_gaussians,
    splats_to_world,
)
from npga_jax.rasterizer import sh
from tests import small_scene

EXPR = np.array([0.5, -1.0, 2.0], np.float32)


def random_params(seed=0):
    """Parameters as they may be after training: nothing is at its first value."""
    params, alive = small_scene.make_params()

    def shake(path, x):
        key = jax.random.fold_in(jax.random.key(seed), len(str(path)))
        return x + 0.1 * jax.random.normal(key, x.shape)

    shaken = jax.tree_util.tree_map_with_path(shake, params)
    means = params.gaussians.means + 0.1 * (
        shaken.gaussians.means - params.gaussians.means
    )
    return shaken._replace(gaussians=shaken.gaussians._replace(means=means)), alive


@jax.jit
def deform(params, alive, expr):
    return deform_gaussians(small_scene.METHOD, params, alive, expr)


@pytest.fixture(scope="module")
def splats():
    splats, _ = deform(*random_params(), EXPR)
    return splats._replace(opacities=jnp.minimum(2 * splats.opacities, 0.9))


@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_cameras_in_the_head_frame_see_what_world_cameras_see(splats, scale):
    viewmats, Ks = small_scene.make_cameras(2)
    pose = small_scene.make_pose(scale)
    in_head = small_scene.render(splats, head_viewmats(viewmats, pose), Ks)
    in_world = small_scene.render(splats_to_world(splats, pose), viewmats, Ks)
    assert np.asarray(in_head.alphas).max() > 0.8
    np.testing.assert_allclose(in_head.colors, in_world.colors, atol=1e-4)
    np.testing.assert_allclose(in_head.alphas, in_world.alphas, atol=1e-4)


def test_head_cameras_are_rigid():
    viewmats, _ = small_scene.make_cameras(3)
    for matrix in np.asarray(head_viewmats(viewmats, small_scene.make_pose(1.7))):
        np.testing.assert_allclose(
            matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-5
        )
        np.testing.assert_array_equal(matrix[3], [0, 0, 0, 1])


def test_dead_slots_change_nothing():
    params, alive = random_params()
    viewmats, Ks = small_scene.make_cameras(2)

    def fill(x):
        return jnp.where(alive.reshape(-1, *[1] * (x.ndim - 1)), x, 5.0)

    garbage = params._replace(gaussians=jax.tree.map(fill, params.gaussians))
    assert not np.all(alive)
    pictures = [
        small_scene.render(deform(p, alive, EXPR)[0], viewmats, Ks)
        for p in (params, garbage)
    ]
    jax.tree.map(np.testing.assert_array_equal, *pictures)


def test_untrained_avatar_is_its_raw_parameters_activated():
    params, alive = small_scene.make_params(sh_degree=1)
    g = params.gaussians
    splats, residuals = deform(params, alive, EXPR)
    np.testing.assert_array_equal(splats.means, g.means)
    np.testing.assert_array_equal(splats.quats, g.quats)
    np.testing.assert_allclose(splats.scales, np.exp(g.log_scales), rtol=1e-6)
    opacities = np.where(alive, 1 / (1 + np.exp(-g.logit_opacities)), 0)
    np.testing.assert_allclose(splats.opacities, opacities, rtol=1e-6)
    np.testing.assert_array_equal(splats.colors, g.sh)
    assert not any(np.any(r) for r in residuals)


def test_scales_and_opacities_stay_in_their_bounds():
    params, alive = small_scene.make_params()
    for value in (-50.0, 50.0):
        g = params.gaussians._replace(
            log_scales=jnp.full_like(params.gaussians.log_scales, value),
            logit_opacities=jnp.full_like(params.gaussians.logit_opacities, value),
        )
        splats, _ = deform(params._replace(gaussians=g), alive, EXPR)
        assert np.all(splats.scales >= (1 - 1e-6) * MIN_SCALE)
        assert np.all(splats.scales <= (1 + 1e-6) * MAX_SCALE)
        assert np.all((splats.opacities >= 0) & (splats.opacities <= 1))
        assert np.all(splats.opacities[~alive] == 0)


def init(points, rgb, spacing, capacity):
    return init_gaussians(
        jnp.asarray(points, jnp.float32),
        jnp.asarray(rgb, jnp.float32),
        jnp.asarray(spacing, jnp.float32),
        capacity=capacity,
        num_features=2,
        sh_degree=1,
        key=jax.random.key(0),
    )


def test_first_gaussians_sit_on_their_points_in_their_colors():
    points = [[0.1, 0.2, 0.3], [-0.1, 0, 0]]
    rgb = [[1.0, 0, 0.25], [0.5, 0.5, 0.5]]
    gaussians, alive = init(points, rgb, [0.01, 100.0], 4)
    np.testing.assert_array_equal(alive, [True, True, False, False])
    np.testing.assert_array_equal(gaussians.means[:2], np.float32(points))
    seen = sh.eval_sh(gaussians.sh[:2], jnp.array([[0, 0, 1.0], [1, 0, 0]]))
    np.testing.assert_allclose(seen, rgb, atol=1e-6)
    scales = np.exp(gaussians.log_scales[:2])
    np.testing.assert_allclose(scales[0], 0.01, rtol=1e-5)
    assert np.all(scales[1] < MAX_SCALE)
    assert all(len(x) == 4 and np.all(np.isfinite(x)) for x in gaussians)
    assert gaussians.sh.shape == (4, 4, 3) and gaussians.features.shape == (4, 2)


def test_more_points_than_slots_is_an_error():
    with pytest.raises(ValueError, match="3 points do not fit into 2 slots"):
        init(np.zeros((3, 3)), np.zeros((3, 3)), np.ones(3), 2)
