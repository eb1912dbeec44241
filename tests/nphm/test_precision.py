"""The head model and what stands on it never round products, whoever calls them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.nphm import model
from npga_jax.nphm.field import canonical_field
from npga_jax.nphm.losses import RANDOM_POINTS, total_loss, training_losses
from npga_jax.nphm.root_finding import invert_deformation
from npga_jax.nphm.streaming import POINT_ROWS, evaluate_chunk
from tests.exact_products import inexact_products
from tests.nphm.test_losses import make_batch
from tests.nphm_case import TINY, make_codes, make_params, make_points

PARAMS, CODES, POINTS = make_params(TINY), make_codes(TINY, 3), make_points(3, 8)


def evaluate_gradients(points, codes):
    def total(codes):
        result, gradient = model.evaluate_with_gradient(PARAMS, TINY, points, codes)
        return jnp.sum(result.color) + jnp.sum(gradient)

    return jax.grad(total)(codes)


def dense(points, codes):
    queries = model.rest_queries(points, TINY)
    anchors = model.predict_anchors(PARAMS, TINY, codes.geo)
    return canonical_field(PARAMS, TINY, queries, codes, anchors, method="dense")


def roots(points, codes):
    def total(codes):
        anchors = model.predict_anchors(PARAMS, TINY, codes.geo)
        found = invert_deformation(PARAMS, TINY, points, codes, anchors)
        return jnp.sum(found.points)

    return jax.grad(total)(codes)


def losses(points, codes):
    def total(params, codes):
        random_points = jnp.zeros((3, RANDOM_POINTS, 3))
        return total_loss(
            training_losses(params, TINY, make_batch(), codes, random_points)
        )

    return jax.grad(total, argnums=(0, 1))(PARAMS, codes)


def chunk(points, codes):
    one = jax.tree.map(lambda x: x[0], codes)
    many = jnp.zeros((POINT_ROWS, 3)).at[: points.shape[1]].set(points[0])
    options = {"posed": True, "with_color": True, "with_gradient": True}
    return evaluate_chunk(PARAMS, TINY, many, 8, one, np.float32(0), **options)


@pytest.mark.parametrize(
    "fn", [evaluate_gradients, dense, roots, losses, chunk], ids=lambda fn: fn.__name__
)
def test_products_are_exact(fn):
    assert not inexact_products(fn, POINTS, CODES)
