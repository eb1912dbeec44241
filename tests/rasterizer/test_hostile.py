"""NaN, infinite, huge, tiny and misplaced Gaussians: finite images and gradients."""

import numpy as np
import pytest

from .scenes import LEAVES, Case, cloud, render_and_grad, without

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
