"""PSNR and SSIM against scikit-image, analytic cases and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from npga_jax.metrics import images as metrics

_ssim = jax.jit(metrics.ssim, static_argnames="padding")
_ssim_map = jax.jit(metrics.ssim_map, static_argnames="padding")


def _pair(height=48, width=37, noise=0.1, seed=0):
    """A smooth random image and a noisy copy, [H, W, 3] float32."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((6, 5, 3))
    target = np.kron(coarse, np.ones((height // 6 + 1, width // 5 + 1, 1)))
    target = target[:height, :width]
    pred = np.clip(target + noise * rng.standard_normal(target.shape), 0, 1)
    return pred.astype(np.float32), target.astype(np.float32)


def test_psnr_matches_scikit_image():
    pred, target = _pair()
    expected = peak_signal_noise_ratio(target, pred, data_range=1.0)
    np.testing.assert_allclose(metrics.psnr(pred, target), expected, rtol=1e-5)


def test_psnr_of_a_constant_error():
    target = jnp.full((8, 9, 3), 0.5)
    np.testing.assert_allclose(metrics.psnr(target + 0.1, target), 20.0, rtol=1e-5)
    np.testing.assert_allclose(metrics.psnr(target, target), 100.0)


def test_psnr_sees_only_the_mask():
    pred, target = _pair()
    mask = np.zeros(pred.shape[:2], bool)
    mask[10:20, 5:30] = True
    expected = peak_signal_noise_ratio(target[mask], pred[mask], data_range=1.0)
    spoiled = np.where(mask[..., None], pred, np.nan)
    np.testing.assert_allclose(metrics.psnr(spoiled, target, mask), expected, rtol=1e-5)
    assert np.isnan(metrics.psnr(pred, target, np.zeros_like(mask)))


def test_psnr_of_painted_images_differs_by_the_share_of_the_mask():
    pred, target = _pair()
    mask = np.zeros(pred.shape[:2], bool)
    mask[10:20, 5:30] = True
    gain = 10 * np.log10(mask.size / mask.sum())
    painted = metrics.psnr(*(metrics.paint_white(x, mask) for x in (pred, target)))
    np.testing.assert_allclose(
        painted, metrics.psnr(pred, target, mask) + gain, rtol=1e-5
    )


def test_psnr_channelwise():
    target = jnp.zeros((6, 7, 3))
    pred = target + jnp.array([0.1, 0.01, 0.001])
    np.testing.assert_allclose(
        metrics.psnr_channelwise(pred, target), (20 + 40 + 60) / 3, rtol=1e-5
    )
    assert metrics.psnr_channelwise(pred, target) > metrics.psnr(pred, target)


@pytest.mark.parametrize("padding", ["zero", "reflect"])
def test_ssim_matches_scikit_image_in_the_interior(padding):
    pred, target = _pair()
    _, expected = structural_similarity(
        target.astype(np.float64),
        pred.astype(np.float64),
        data_range=1.0,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    ours = _ssim_map(jnp.asarray(pred), jnp.asarray(target), padding=padding)
    inner = (slice(5, -5), slice(5, -5))
    np.testing.assert_allclose(np.asarray(ours)[inner], expected[inner], atol=1e-4)


def _direct_blur(image, mode):
    """The 11 x 11 window written as a double loop, float64."""
    t = np.arange(-5, 6)
    window = np.exp(-(t**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    padded = np.pad(image.astype(np.float64), ((5, 5), (5, 5), (0, 0)), mode=mode)
    height, width = image.shape[:2]
    return sum(
        window[i, j] * padded[i : i + height, j : j + width]
        for i in range(11)
        for j in range(11)
    )


@pytest.mark.parametrize(
    "padding, mode", [("zero", "constant"), ("reflect", "reflect")]
)
def test_ssim_matches_the_formula_up_to_the_border(padding, mode):
    x, y = (image.astype(np.float64) for image in _pair(20, 23))
    mx, my = _direct_blur(x, mode), _direct_blur(y, mode)
    vx = _direct_blur(x * x, mode) - mx**2
    vy = _direct_blur(y * y, mode) - my**2
    cov = _direct_blur(x * y, mode) - mx * my
    expected = (2 * mx * my + 1e-4) * (2 * cov + 9e-4)
    expected /= (mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)
    ours = _ssim_map(jnp.float32(x), jnp.float32(y), padding=padding)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_ssim_of_two_constants_is_the_luminance_term():
    a, b = 0.3, 0.6
    pred, target = jnp.full((20, 20, 3), a), jnp.full((20, 20, 3), b)
    expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    ours = _ssim(pred, target, padding="reflect")
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_ssim_gradient_is_zero_and_finite_at_identical_images():
    _, target = _pair()
    for image in (target, np.zeros_like(target), np.ones_like(target)):
        value, gradient = jax.value_and_grad(_ssim)(
            jnp.asarray(image), jnp.asarray(image)
        )
        np.testing.assert_allclose(value, 1.0, atol=1e-6)
        np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


def test_ssim_gradient_matches_finite_differences():
    with jax.enable_x64(True):
        pred, target = (jnp.asarray(i, jnp.float64) for i in _pair(14, 13))
        for padding in ("zero", "reflect"):

            def loss(x, padding=padding):
                return _ssim(x, target, padding=padding)

            direction = jnp.asarray(
                np.random.default_rng(1).standard_normal(pred.shape)
            )
            step = 1e-6
            numeric = loss(pred + step * direction) - loss(pred - step * direction)
            exact = jnp.vdot(jax.grad(loss)(pred), direction)
            np.testing.assert_allclose(exact, numeric / (2 * step), rtol=1e-6)


def test_batches_and_vmap_equal_single_images():
    pairs = [_pair(seed=s) for s in range(3)]
    preds, targets = (jnp.stack(images) for images in zip(*pairs, strict=True))
    mask = np.random.default_rng(2).random(preds.shape[:3]) > 0.5
    single = [_ssim(p, t, m) for p, t, m in zip(preds, targets, mask, strict=True)]
    np.testing.assert_allclose(_ssim(preds, targets, mask), single, rtol=1e-6)
    mapped = jax.jit(jax.vmap(metrics.ssim))(preds, targets, mask)
    np.testing.assert_allclose(mapped, single, rtol=1e-5)
    assert metrics.psnr(preds, targets, mask).shape == (3,)


def test_wrong_padding_is_named():
    pred, target = _pair()
    with pytest.raises(ValueError, match="mirror"):
        metrics.ssim_map(pred, target, padding="mirror")
