import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import correlate1d

from npga_jax.avatar.method import LossTerm, StepView, terms_at
from npga_jax.core.types import RenderOutput, Splats
from npga_jax.training import losses
from npga_jax.training.losses import (
    LARGE_SCALE,
    composite_target,
    crop_around,
    mean_psnr,
    scale_excess,
    weighted_terms,
)
from tests import small_scene

SHAPE = (2, 14, 17, 3)
_rng = np.random.default_rng(0)
COLORS = _rng.uniform(size=SHAPE).astype(np.float32)
TARGET = np.clip(COLORS + _rng.normal(0, 0.1, SHAPE), 0, 1).astype(np.float32)
TERMS = (
    LossTerm("l1", 0.7, losses.l1),
    LossTerm("ssim", 0.2, losses.ssim),
    LossTerm("alpha", 0.3, losses.alpha),
)


def view_of(colors, alphas, target, matte):
    """A view of a step that has images alone."""
    colors, alphas, target, matte = (
        jnp.asarray(x, jnp.float32) for x in (colors, alphas, target, matte)
    )
    out = RenderOutput(colors, None, alphas, *[None] * 4)
    return StepView(
        *[None] * 5,
        out=out,
        shown=colors,
        target=target,
        matte=matte,
        parts=jnp.zeros_like(matte),
        viewmats=None,
        Ks=None,
        graph=None,
        key=jax.random.key(0),
    )


def loss(colors, alphas, target, matte, terms=TERMS):
    view = view_of(colors, alphas, target, matte)
    total, values = weighted_terms(terms, view)
    return total, values | {"psnr": mean_psnr(view.shown, view.target)}


def window_mean(image):
    weights = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        image = correlate1d(image, weights, axis=axis, mode="constant")
    return image


def naive_ssim(x, y):
    """Mean of Wang et al.'s index of two images [H, W], zeros outside."""
    mx, my = window_mean(x), window_mean(y)
    vx, vy = window_mean(x * x) - mx**2, window_mean(y * y) - my**2
    covariance = window_mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    index = (2 * mx * my + c1) * (2 * covariance + c2)
    return np.mean(index / ((mx**2 + my**2 + c1) * (vx + vy + c2)))


def test_terms_are_what_is_computed_by_hand():
    alphas = np.full(SHAPE[:3], 0.25, np.float32)
    matte = np.zeros(SHAPE[:3], np.float32)
    matte[0] = 1.0
    total, terms = loss(COLORS, alphas, TARGET, matte)
    x, y = COLORS.astype(np.float64), TARGET.astype(np.float64)
    ssim = np.mean(
        [naive_ssim(x[b, ..., c], y[b, ..., c]) for b in range(2) for c in range(3)]
    )
    psnr = np.mean(-10 * np.log10(np.mean((x - y) ** 2, axis=(1, 2, 3))))
    assert terms["l1"] == pytest.approx(np.mean(np.abs(x - y)), rel=1e-5)
    assert terms["ssim"] == pytest.approx(1 - ssim, rel=1e-4)
    assert terms["alpha"] == pytest.approx((0.75 + 0.25) / 2)
    assert terms["psnr"] == pytest.approx(psnr, rel=1e-5)
    expected = 0.7 * np.mean(np.abs(x - y)) + 0.2 * (1 - ssim) + 0.3 * 0.5
    assert total == pytest.approx(expected, rel=1e-5)


def test_constant_images_differ_by_their_difference():
    _, terms = loss(
        np.full(SHAPE, 0.5), COLORS[..., 0], np.full(SHAPE, 0.3), COLORS[..., 0]
    )
    assert terms["l1"] == pytest.approx(0.2, rel=1e-5) and terms["alpha"] == 0
    assert terms["psnr"] == pytest.approx(-10 * np.log10(0.04), rel=1e-5)


def test_psnr_clips_what_is_brighter_than_white():
    ones = np.ones(SHAPE)
    _, terms = loss(1.5 * ones, ones[..., 0], ones, ones[..., 0])
    assert terms["psnr"] == 100.0
    assert terms["l1"] == pytest.approx(0.5)


def test_psnr_does_not_depend_on_how_views_are_grouped():
    alphas = np.zeros(SHAPE[:3])
    target = TARGET.copy()
    target[1] = 0.0
    together = loss(COLORS, alphas, target, alphas)[1]["psnr"]
    apart = [
        loss(COLORS[i : i + 1], alphas[:1], target[i : i + 1], alphas[:1])[1]["psnr"]
        for i in range(2)
    ]
    assert abs(apart[0] - apart[1]) > 3.0
    assert together == pytest.approx(float(sum(apart)) / 2, rel=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("matte", [0.0, 1.0])
def test_gradients_are_finite_where_nothing_is_wrong(level, matte):
    colors, alphas = np.full(SHAPE, level), np.full(SHAPE[:3], matte)
    value, grads = jax.value_and_grad(
        lambda c, a: loss(c, a, colors, alphas)[0], argnums=(0, 1)
    )(jnp.asarray(colors), jnp.asarray(alphas))
    assert value == pytest.approx(0.0, abs=1e-6)
    assert all(np.all(np.isfinite(g)) for g in grads)


def test_target_is_the_person_on_the_background():
    rgb = np.array([[[[255, 0, 51]] * 3]], np.uint8)
    alpha = np.array([[[255, 0, 51]]], np.uint8)
    image, matte = composite_target(rgb, alpha, 1.0)
    np.testing.assert_allclose(matte, [[[1, 0, 0.2]]], atol=1e-6)
    np.testing.assert_allclose(
        image[0, 0], [[1, 0, 0.2], [1, 1, 1], [1, 0.8, 0.84]], atol=1e-6
    )
    image, _ = composite_target(rgb, alpha, jnp.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(image[0, 0, 1], [0, 0.5, 1.0], atol=1e-6)
    np.testing.assert_allclose(image[0, 0, 2], [0.2, 0.4, 0.84], atol=1e-6)


def test_terms_of_weight_zero_or_of_later_are_not_computed():
    def never(view):
        raise AssertionError("it was computed")

    method = small_scene.METHOD.with_term(LossTerm("zero", 0.0, never))
    method = method.with_term(LossTerm("later", 1.0, never, start=0.5))
    names = [t.name for t in terms_at(method, 0.4, has_mattes=True)]
    assert names == ["l1", "ssim", "alpha", "residual"]
    assert terms_at(method, 0.5, has_mattes=True)[-1].name == "later"
    bare = [t.name for t in terms_at(method, 0.4, has_mattes=False)]
    assert bare == ["l1", "ssim", "residual"]


def test_each_term_has_a_key_of_its_own_whatever_others_there_are():
    def draw(view):
        return jax.random.uniform(view.key)

    view = view_of(COLORS, COLORS[..., 0], TARGET, TARGET[..., 0])
    a, b = LossTerm("a", 1.0, draw), LossTerm("b", 1.0, draw)
    _, both = weighted_terms((a, b), view)
    _, alone = weighted_terms((b,), view)
    assert both["b"] == alone["b"] != both["a"]


def test_parts_count_eyes_and_mouth_once_more():
    view = view_of(COLORS, COLORS[..., 0], TARGET, TARGET[..., 0])
    some = jnp.zeros(SHAPE[:3]).at[0, 3:5, 2:9].set(1.0)
    value = losses.parts(view._replace(parts=some))
    expected = np.abs(COLORS - TARGET)[0, 3:5, 2:9].sum() / COLORS.size
    assert value == pytest.approx(expected, rel=1e-5)


def test_crops_lie_around_their_centres_and_inside_the_image():
    images = jnp.asarray(_rng.uniform(size=(3, 20, 30, 3)), jnp.float32)
    centres = jnp.array([[15.0, 9.0], [-4.0, 2.0], [29.0, 40.0]])
    crops = crop_around(images, centres, 8)
    corners = [(11, 5), (0, 0), (22, 12)]
    for crop, image, (x, y) in zip(crops, images, corners, strict=True):
        np.testing.assert_array_equal(crop, image[y : y + 8, x : x + 8])


def test_only_large_scales_of_living_gaussians_are_in_excess():
    scales = LARGE_SCALE * jnp.array([[1.0, 0.5, 0.2], [3.0, 2.0, 1.0], [9.0, 9, 9]])
    splats = Splats(scales, None, scales, None, None)
    excess = scale_excess(splats, jnp.array([True, True, False]))
    assert excess == pytest.approx((0 + 2 + 1) / 2, rel=1e-5)
