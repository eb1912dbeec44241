"""NaN, infinite, huge, misplaced, too many: finite images and gradients."""

import numpy as np
import pytest

from .scenes import LEAVES, Case, cloud, render, render_and_grad, without

ROW = 20
UNUSABLE = (np.nan, np.inf, -np.inf, 1e30, -1e30, 3e38)
USABLE = (0.0, -0.0, -1.0, 1e-30, -1e-30, 1e-10, 1e-7)


def _spoiled(scene, leaf, value, whole_row):
    spoiled = {k: v.copy() for k, v in scene.items()}
    if whole_row:
        spoiled[leaf][ROW] = value
    else:
        spoiled[leaf][ROW].reshape(-1)[-1] = value
    return spoiled


def _all_finite(out, grads):
    images = (out.colors, out.alphas, out.depths)
    return all(np.all(np.isfinite(x)) for x in (*images, *grads.values()))


@pytest.fixture(scope="module", params=["channels", "sh", "pure"])
def setting(request):
    """A case that other tests compile too, its scene, and that without one row."""
    if request.param in ("channels", "pure"):
        case, scene = Case(pure=request.param == "pure"), cloud()
    else:
        case, scene = Case(33, 21, tile_size=16), cloud(sh_bases=16)
    visible = np.any(render_and_grad(case, scene)[1]["means"][ROW] != 0)
    assert visible
    return case, scene, render_and_grad(case, without(scene, ROW))


@pytest.mark.parametrize("whole_row", [True, False])
@pytest.mark.parametrize("leaf", LEAVES)
def test_unusable_rows_are_culled_counted_and_get_no_gradient(setting, leaf, whole_row):
    case, scene, (expected, expected_grads) = setting
    for value in UNUSABLE:
        if leaf == "opacities" and not whole_row:
            continue
        out, grads = render_and_grad(case, _spoiled(scene, leaf, value, whole_row))
        assert out.num_invalid == 1, value
        for x, y in zip(out[:3], expected[:3], strict=True):
            np.testing.assert_array_equal(x, y)
        for name in LEAVES:
            assert np.all(grads[name][ROW] == 0), (value, name)
            np.testing.assert_array_equal(grads[name], expected_grads[name])


@pytest.mark.parametrize("leaf", LEAVES)
def test_odd_but_usable_values_stay_finite(setting, leaf):
    case, scene, _ = setting
    for value in USABLE:
        for whole_row in (True, False):
            if leaf == "opacities" and not whole_row:
                continue
            out, grads = render_and_grad(case, _spoiled(scene, leaf, value, whole_row))
            assert out.num_invalid == 0, value
            assert _all_finite(out, grads), value


def test_opacity_of_zero_or_below_is_as_if_absent(setting):
    case, scene, (expected, _) = setting
    for value in (-1.0, -0.0, 1e-30, 0.0039):
        out, grads = render_and_grad(case, _spoiled(scene, "opacities", value, True))
        np.testing.assert_array_equal(out.colors, expected.colors)
        assert all(np.all(g[ROW] == 0) for g in grads.values())


def test_several_kinds_of_unusable_rows_are_all_counted():
    scene = cloud()
    scene["means"][10], scene["quats"][11], scene["scales"][12] = np.nan, np.inf, 1e20
    scene["opacities"][13], scene["colors"][14, 1] = -np.inf, np.nan
    out, grads = render_and_grad(Case(), scene)
    assert out.num_invalid == 5
    assert _all_finite(out, grads)


@pytest.mark.parametrize(
    ("position", "seen"),
    [
        ((0.0, 0.0, 0.0), False),
        ((0.0, 0.0, -3.0), False),
        ((0.0, 0.0, 0.00999), False),
        ((0.0, 0.0, 0.0101), True),
        ((1e6, 0.0, 0.02), False),
        ((-1e6, 1e6, 1.0), False),
        ((0.0, 0.0, 1e10), False),
        ((0.0, 0.0, 9e9), True),
        ((1e14, 1e14, 1e14), False),
    ],
)
def test_misplaced_gaussians_are_finite_and_culled_where_unseen(position, seen):
    scene = cloud()
    scene["means"][ROW], scene["scales"][ROW] = position, 0.003
    scene["opacities"][ROW] = 0.5
    identity = np.eye(4, dtype=np.float32)[None]
    K = np.float32([[[40, 0, 18], [0, 44, 20], [0, 0, 1]]])
    out, grads = render_and_grad(Case(), scene, (identity, K))
    assert _all_finite(out, grads)
    assert out.num_invalid == 0
    assert np.any(grads["colors"][ROW] != 0) == seen
    if not seen:
        absent, _ = render_and_grad(Case(), without(scene, ROW), (identity, K))
        np.testing.assert_array_equal(out.colors, absent.colors)
        assert all(np.all(g[ROW] == 0) for g in grads.values())


def _layers(n, opacity, seed=0):
    """Even layers before a camera at the origin, each larger than its view."""
    rng = np.random.default_rng(seed)
    means = np.zeros((n, 3), np.float32)
    means[:, 2] = rng.permutation(np.linspace(2.0, 3.0, n))
    scene = {
        "means": means,
        "quats": np.ones((n, 4), np.float32),
        "scales": np.full((n, 3), 300.0, np.float32),
        "opacities": np.full(n, opacity, np.float32),
        "colors": rng.uniform(size=(n, 3)).astype(np.float32),
    }
    return scene, np.argsort(means[:, 2], kind="stable")


def _facing(width, height):
    K = [[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]]
    return np.eye(4, dtype=np.float32)[None], np.float32([K])


def _blended(colors, opacity):
    """Weights of even layers, front to back, and their colour on the background."""
    weights, transmittance = np.zeros(len(colors)), 1.0
    for i in range(len(colors)):
        after = transmittance * (1.0 - opacity)
        if after <= 1e-4:
            break
        weights[i], transmittance = transmittance - after, after
    background = np.linspace(0.2, 0.9, 3)
    return weights, weights @ np.float64(colors) + transmittance * background


@pytest.mark.parametrize("pure", [False, True])
def test_a_million_intersections_without_room_are_counted(pure):
    case = Case(160, 200, max_isects=20_000, pure=pure)
    scene, order = _layers(2_000, 0.05)
    out, grads = render_and_grad(case, scene, _facing(160, 200))
    # 500 tiles each: room for the nearest 40.
    assert out.num_isects == 1_000_000
    assert out.num_dropped == 980_000
    assert _all_finite(out, grads)
    _, expected = _blended(scene["colors"][order[:40]], 0.05)
    np.testing.assert_allclose(
        out.colors, np.broadcast_to(expected, out.colors.shape), atol=1e-4
    )
    kept = np.any(grads["colors"] != 0, axis=1)
    np.testing.assert_array_equal(np.flatnonzero(kept), np.sort(order[:40]))


@pytest.mark.parametrize("pure", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_all_gaussians_of_a_large_cloud_in_one_tile(pure):
    n, opacity = 250_000, 0.006
    case = Case(8, 8, render_depth=False, max_isects=n, pure=pure)
    scene, order = _layers(n, opacity)
    out, grads = render_and_grad(case, scene, _facing(8, 8))
    assert out.num_isects == n and out.num_dropped == 0
    weights, expected = _blended(scene["colors"][order], opacity)
    assert 1_000 < np.count_nonzero(weights) < 2_000
    np.testing.assert_allclose(
        out.colors, np.broadcast_to(expected, out.colors.shape), atol=1e-4
    )
    assert _finite_grads(grads)
    # A gradient where there is light, in proportion to it; nothing behind.
    gradient = grads["colors"][order].astype(np.float64)
    slope = gradient[0] / weights[0]
    error = np.abs(gradient - weights[:, None] * slope).max() / np.abs(gradient).max()
    assert error < 1e-3
    assert np.all(gradient[weights == 0] == 0)


def _finite_grads(grads):
    return all(np.all(np.isfinite(g)) for g in grads.values())


@pytest.mark.parametrize("pure", [False, True])
def test_one_gaussian_over_an_uneven_image_gets_the_gradient_of_all_pixels(pure):
    case = Case(45, 37, render_depth=False, pure=pure)
    scene, _ = _layers(1, 0.5)
    out, grads = render_and_grad(case, scene, _facing(45, 37))
    assert out.num_isects == 6 * 5 and _finite_grads(grads)
    _, expected = _blended(scene["colors"], 0.5)
    np.testing.assert_allclose(
        out.colors, np.broadcast_to(expected, out.colors.shape), atol=1e-5
    )
    # The loss is linear: the noise of `scenes.loss_fn` at every pixel, not one beyond.
    noise = np.random.default_rng(0).normal(size=(37, 45, 3)).mean(axis=(0, 1))
    np.testing.assert_allclose(grads["colors"][0], 0.5 * noise, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("pure", [False, True])
def test_an_image_of_67_million_pixels(pure):
    side = 8192
    case = Case(side, side, render_depth=False, max_isects=4_000_000, pure=pure)
    scene, order = _layers(3, 0.5)
    # The second covers a corner of the view alone.
    scene["means"][order[1], :2], scene["scales"][order[1]] = (-0.9, -0.9), 0.05
    out = render(case, scene, _facing(side, side))
    assert 2 * 1024**2 < out.num_isects < 3 * 1024**2 and out.num_dropped == 0
    background = np.linspace(0.2, 0.9, 3)
    front, back = (scene["colors"][order[i]] for i in (0, 2))
    expected = 0.5 * front + 0.25 * back + 0.25 * background
    # The last rows and columns, where an index that wraps would show.
    for part in (out.colors[0, -9:], out.colors[0, :, -9:]):
        np.testing.assert_allclose(
            part, np.broadcast_to(expected, part.shape), atol=1e-4
        )
    assert np.all(np.isfinite(out.colors))
