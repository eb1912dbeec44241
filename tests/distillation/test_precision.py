"""F and its distillation never round products, whoever calls them."""

import jax
import numpy as np

from npga_jax.distillation.distill import distillation_loss, initial_forward
from npga_jax.distillation.person import make_backward
from npga_jax.distillation.sampling import Sample
from tests.distillation.ball_person import CODES, NUM_FEATURES, OPTIONS, make_person
from tests.exact_products import inexact_products


def test_products_are_exact():
    backward = make_backward(make_person())
    params = initial_forward(
        CODES.mean(axis=0), 1.0, num_features=NUM_FEATURES, options=OPTIONS
    )
    sample = Sample(
        points=np.zeros((32, 3), np.float32),
        far=np.zeros((4, 3), np.float32),
        expr=CODES,
        offsets=np.zeros((len(CODES), 16, 3), np.float32),
    )

    def loss(params):
        options = {"octaves": OPTIONS.octaves, "far_weight": 1.0, "fold_weight": 1.0}
        return distillation_loss(params, backward, sample, **options)

    assert not inexact_products(jax.grad(loss), params)
