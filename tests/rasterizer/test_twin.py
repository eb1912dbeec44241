"""The tiled renderer against the dense one, finite differences and invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from npga_jax.core.math import quat_multiply, quat_to_rotmat
from npga_jax.rasterizer.sh import eval_sh

from .scenes import (
    LEAVES,
    Case,
    assert_grads_close,
    assert_images_close,
    cameras,
    cloud,
    loss_fn,
    quick_jit,
    render,
    render_and_grad,
    render_fn,
    users_jit,
    wall,
    without,
)

CASE = Case()


@pytest.mark.parametrize(
    ("case", "scene"),
    [
        pytest.param(CASE, cloud(), id="tile8-depth"),
        pytest.param(CASE, wall(), id="tile8-opaque"),
        pytest.param(
            Case(70, 100, tile_size=16, render_depth=False, antialiased=True),
            cloud(channels=12),
            id="tile16-twelve-channels-antialiased",
        ),
        pytest.param(
            Case(num_cameras=2, render_depth=False),
            cloud(channels=1),
            id="one-channel-two-cameras",
        ),
        pytest.param(Case(33, 21, tile_size=16), cloud(sh_bases=16), id="tile16-sh3"),
    ],
)
@pytest.mark.parametrize("pure", [False, True])
def test_tiled_equals_dense(case, scene, pure):
    case = case._replace(pure=pure)
    out, grads = render_and_grad(case, scene)
    expected, expected_grads = render_and_grad(
        case._replace(pure=False), scene, reference=True
    )
    assert np.all(out.num_dropped == 0)
    assert np.all(out.num_isects > 0)
    assert np.ptp(expected.colors) > 0.1
    assert_images_close(out, expected)
    assert_grads_close(grads, expected_grads)


def test_a_pixel_ends_before_the_layer_that_would_leave_too_little_light():
    layers = cloud()
    layers["means"] = np.float32([[0, 0, 3 + i] for i in range(64)])
    layers["scales"] = np.full((64, 3), 1e4, np.float32)
    layers["opacities"] = np.full(64, 0.97, np.float32)
    out, grads = render_and_grad(CASE, layers)
    # 0.03 ** 2 is above the threshold of 1e-4, 0.03 ** 3 below.
    np.testing.assert_allclose(out.alphas, 1 - 0.03**2, atol=1e-5)
    assert np.all(grads["colors"][:2] != 0)
    for name in LEAVES:
        assert np.all(grads[name][2:] == 0), name


def test_each_camera_renders_as_if_alone():
    both, scene = Case(num_cameras=2, render_depth=False), cloud(channels=1)
    viewmats, Ks = cameras(2, both.width, both.height)
    out = users_jit(render_fn(both))(scene, viewmats, Ks)
    single = users_jit(render_fn(both._replace(num_cameras=1)))
    for i in range(2):
        alone = single(scene, viewmats[i : i + 1], Ks[i : i + 1])
        np.testing.assert_allclose(out.alphas[i], alone.alphas[0], atol=1e-6)
        assert out.num_isects[i] == alone.num_isects[0]
    assert np.abs(out.alphas[0] - out.alphas[1]).max() > 0.1


def test_a_clamped_opacity_gets_no_gradient():
    scene = without(cloud(), slice(None))
    scene["means"][9], scene["scales"][9], scene["opacities"][9] = [0, 0, 3], 1e4, 1.0
    out, grads = render_and_grad(CASE, scene)
    np.testing.assert_allclose(out.alphas, 0.999, atol=1e-6)
    assert np.all(grads["colors"][9] != 0)
    for name in ("quats", "scales", "opacities"):
        assert np.all(grads[name] == 0), name


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_spherical_harmonics_are_seen_from_the_camera(degree):
    scene = cloud(sh_bases=(degree + 1) ** 2)
    case = Case(16, 8, render_depth=False)
    viewmats, _ = cameras(1, 16, 8)
    center = -viewmats[0, :3, :3].T @ viewmats[0, :3, 3]
    directions = scene["means"] - center
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    plain = {**scene, "colors": np.asarray(eval_sh(scene["colors"], directions))}
    np.testing.assert_allclose(
        render(case, scene).colors, render(case, plain).colors, atol=2e-6
    )


@pytest.mark.parametrize("antialiased", [False, True])
def test_gradients_match_finite_differences(antialiased):
    rng = np.random.default_rng(3)
    n = 6
    params = {
        "means": rng.normal(size=(n, 3)) * 0.3 + [0, 0, 3],
        "quats": rng.normal(size=(n, 4)),
        "scales": rng.uniform(0.1, 0.5, size=(n, 3)),
        "opacities": rng.uniform(0.2, 0.9, size=n),
        "colors": rng.normal(0, 0.3, size=(n, 4, 3)),
    }
    case = Case(13, 11, antialiased=antialiased)
    with jax.enable_x64(True):
        view = [jnp.asarray(x, jnp.float64) for x in cameras(1, 13, 11)]
        flat, unravel = ravel_pytree(jax.tree.map(jnp.asarray, params))
        assert flat.dtype == jnp.float64
        loss = loss_fn(case)

        def of_flat(x):
            return loss(unravel(x), *view)[0]

        grad = np.asarray(quick_jit(jax.grad(of_flat))(flat))
        value = quick_jit(of_flat)
        eps = 1e-5
        steps = eps * np.eye(flat.size)
        numeric = [(value(flat + s) - value(flat - s)) / (2 * eps) for s in steps]
    scale = np.abs(grad).max()
    np.testing.assert_allclose(grad / scale, np.array(numeric) / scale, atol=1e-7)


def test_rotating_scene_and_camera_together_changes_nothing():
    scene = cloud()
    viewmats, Ks = cameras(1, CASE.width, CASE.height)
    turn = np.float32([0.9, -0.3, 0.2, 0.25])
    rotation = np.asarray(quat_to_rotmat(turn))
    shift = np.float32([0.3, -0.2, 0.4])
    moved = {
        **scene,
        "means": scene["means"] @ rotation.T + shift,
        "quats": np.asarray(quat_multiply(turn, scene["quats"])),
    }
    world = np.eye(4, dtype=np.float32)
    world[:3, :3], world[:3, 3] = rotation, shift
    expected, _ = render_and_grad(CASE, scene)
    out, _ = render_and_grad(CASE, moved, (viewmats @ np.linalg.inv(world), Ks))
    assert_images_close(out, expected, tolerance=1e-4)


def test_order_of_gaussians_does_not_matter():
    scene = cloud()
    order = np.random.default_rng(5).permutation(len(scene["means"]))
    expected, expected_grads = render_and_grad(CASE, scene)
    out, grads = render_and_grad(CASE, {k: v[order] for k, v in scene.items()})
    for name in ("colors", "alphas", "depths"):
        np.testing.assert_array_equal(getattr(out, name), getattr(expected, name))
    for name in LEAVES:
        scale = np.abs(expected_grads[name]).max()
        np.testing.assert_allclose(
            grads[name] / scale, expected_grads[name][order] / scale, atol=1e-6
        )


def test_padding_changes_nothing_and_gets_no_gradient():
    scene = cloud()
    kept = {k: v[:48] for k, v in scene.items()}
    padded = {k: v.copy() for k, v in scene.items()}
    padded["opacities"][48:] = 0.0
    padded["quats"][56:], padded["scales"][56:], padded["means"][56:] = 0, 0, 0
    expected, expected_grads = render_and_grad(CASE, kept)
    out, grads = render_and_grad(CASE, padded)
    np.testing.assert_allclose(out.colors, expected.colors, atol=1e-6)
    for name in LEAVES:
        assert np.all(grads[name][48:] == 0), name
        scale = np.abs(expected_grads[name]).max()
        np.testing.assert_allclose(
            grads[name][:48] / scale, expected_grads[name] / scale, atol=1e-6
        )


def test_length_and_sign_of_quaternions_do_not_matter():
    scene = cloud()
    factor = np.float32(np.random.default_rng(6).uniform(0.1, 9, (64, 1)))
    factor[::2] *= -1
    expected, expected_grads = render_and_grad(CASE, scene)
    out, grads = render_and_grad(CASE, {**scene, "quats": scene["quats"] * factor})
    assert_images_close(out, expected)
    grads["quats"] *= factor
    assert_grads_close(grads, expected_grads)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_forward_and_backward_lower_for(platform):
    step = jax.jit(jax.grad(loss_fn(CASE), has_aux=True))
    traced = step.trace(cloud(), *cameras(1, CASE.width, CASE.height))
    assert traced.lower(lowering_platforms=(platform,)).as_text()
