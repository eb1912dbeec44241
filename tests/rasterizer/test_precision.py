"""Products of matrices are exact without anybody having set up the process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.metrics.images import psnr, ssim
from npga_jax.metrics.perceptual import make_lpips
from npga_jax.rasterizer import pallas

from .scenes import Case, cameras, cloud, loss_fn

_HIGHEST = (jax.lax.Precision.HIGHEST,) * 2
_PRODUCTS = ("dot_general", "conv_general_dilated", "ragged_dot_general")


def products(jaxpr):
    """Precisions of all products of a jaxpr, those of the programs inside included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in _PRODUCTS:
            yield equation.params["precision"]
        for inner in jax.tree.leaves(
            equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            if hasattr(inner, "jaxpr"):
                yield from products(inner.jaxpr)
            elif hasattr(inner, "eqns"):
                yield from products(inner)


def _found(fn, *args):
    # As in a process that nobody has configured.
    with jax.default_matmul_precision(None):
        return list(products(jax.make_jaxpr(fn)(*args).jaxpr))


@pytest.mark.parametrize(
    ("case", "channels", "sh_bases", "least"),
    [
        (Case(pure=True), 3, None, 1),
        (Case(pure=True), 12, None, 4),
        (Case(pure=True), 3, 16, 1),
        (Case(driver=pallas.TPU), 3, None, 5),
        (Case(driver=pallas.TRITON), 3, None, 0),
        (Case(), 3, 16, 0),
    ],
)
def test_rasterization_and_its_gradient(case, channels, sh_bases, least):
    scene = cloud(channels=channels, sh_bases=sh_bases)
    view = cameras(1, case.width, case.height)
    found = _found(jax.grad(loss_fn(case), has_aux=True), scene, *view)
    assert len(found) >= least
    assert set(found) <= {_HIGHEST}


@pytest.mark.parametrize("padding", ["zero", "reflect"])
def test_image_metrics(padding):
    image = jnp.zeros((20, 16, 3))

    def total(pred):
        return psnr(pred, image) + ssim(pred, image, padding=padding)

    assert set(_found(jax.grad(total), image)) <= {_HIGHEST}


def test_perceptual_distance():
    image = jnp.zeros((1, 32, 32, 3))
    found = _found(make_lpips("alex"), image, image)
    assert len(found) == 5
    assert set(found) == {_HIGHEST}


def test_an_inexact_product_would_be_found():
    found = _found(lambda x: jax.lax.map(lambda row: row @ x, x), np.eye(3))
    assert found == [None]
