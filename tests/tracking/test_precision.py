"""The tracker's steps never round products, whoever calls them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.tracking.equations import Observations, PriorWeights, Robust, Unknowns
from npga_jax.tracking.schedule import as_arrays
from npga_jax.tracking.solver import solve_expressions, solve_identity
from tests.exact_products import inexact_products
from tests.small_head_model import TINY as CFG
from tests.small_head_model import make_model


@pytest.mark.parametrize("solve", [solve_expressions, solve_identity])
def test_products_are_exact(solve):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(2, 9, 3)).astype(np.float32)
    unknowns = Unknowns(
        geo=np.zeros(CFG.lat_dim_geo, np.float32),
        exp=np.zeros((2, CFG.lat_dim_exp), np.float32),
        pose=np.zeros((2, 6), np.float32),
    )
    params = jax.tree.map(jnp.asarray, make_model(CFG).params)
    step = partial(solve, params, CFG)
    assert not inexact_products(
        step,
        Observations(points, points, np.ones((2, 9), np.float32)),
        unknowns,
        np.ones(2, np.float32),
        jnp.ones(2) if solve is solve_expressions else jnp.ones(()),
        as_arrays(PriorWeights(), CFG),
        Robust(0.01, 0.05, 0.5),
    )
