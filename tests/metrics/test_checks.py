"""Images that are none, and masks of another shape, are refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.metrics import images as metrics
from npga_jax.metrics.perceptual import make_lpips

_rng = np.random.default_rng(0)
IMAGE = _rng.random((40, 33, 3), np.float32)
MASK = np.ones((40, 33), bool)


def _lpips(pred, target):
    return make_lpips("alex")(pred[None], target[None])


PAIRS = {
    "psnr": metrics.psnr,
    "mean_squared_error": metrics.mean_squared_error,
    "psnr_channelwise": metrics.psnr_channelwise,
    "ssim": metrics.ssim,
    "ssim_map": metrics.ssim_map,
    "lpips": _lpips,
}
pairs = pytest.mark.parametrize("fn", PAIRS.values(), ids=PAIRS.keys())


@pairs
@pytest.mark.parametrize("which", ["pred", "target"])
def test_images_in_0_to_255_are_refused_by_name(fn, which):
    for wrong, said in (
        (np.uint8(255 * IMAGE), "uint8; expected .* floating point"),
        (255 * IMAGE, r"values up to 2\d\d.*; expected .* \[0, 1\]"),
    ):
        given = {"pred": IMAGE, "target": IMAGE, which: wrong}
        with pytest.raises(ValueError, match=f"^{which} (is of|has) {said}"):
            fn(given["pred"], given["target"])


@pairs
def test_images_of_two_sizes_are_refused(fn):
    with pytest.raises(ValueError, match=r"expected the same size|takes two arrays"):
        fn(IMAGE, IMAGE[:, :, :1])


@pairs
def test_a_rendering_may_overshoot(fn):
    assert np.all(np.isfinite(fn(1.5 * IMAGE, IMAGE)))


def test_kinds_are_known_inside_a_program_too():
    with pytest.raises(ValueError, match=r"^pred is of uint8"):
        jax.jit(metrics.psnr)(np.uint8(255 * IMAGE), IMAGE)


@pytest.mark.parametrize("shape", [(40, 33, 1), (40, 33, 3), (33, 40), (40, 1), (1,)])
@pytest.mark.parametrize("fn", [metrics.psnr, metrics.ssim])
def test_masks_of_another_shape_are_refused(fn, shape):
    with pytest.raises(ValueError, match=r"^mask is .* expected \[\.\.\., H, W\]"):
        fn(IMAGE, IMAGE, np.ones(shape, bool))
    with pytest.raises(ValueError, match=r"^mask is "):
        metrics.paint_white(IMAGE, np.ones(shape, bool))


def test_one_mask_may_serve_several_images():
    images = np.stack([IMAGE, IMAGE / 2])
    expected = [metrics.psnr(x, IMAGE, MASK) for x in images]
    np.testing.assert_allclose(metrics.psnr(images, IMAGE, MASK), expected, rtol=1e-6)


def test_an_empty_mask_gives_nan():
    empty = jnp.zeros_like(MASK)
    assert np.isnan(metrics.psnr(IMAGE, IMAGE, empty))
    assert np.isnan(metrics.ssim(IMAGE, IMAGE, empty))
