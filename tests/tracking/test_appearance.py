"""Colours in the fit: the canonical grid, the Jacobian, and what it finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.nphm.codes import Codes
from npga_jax.nphm.model import deform, predict_anchors
from npga_jax.tracking.appearance import (
    Texture,
    color_channels,
    color_term,
    make_texture,
    sample_texture,
)
from npga_jax.tracking.equations import Observations, PriorWeights, Robust, Unknowns
from npga_jax.tracking.solver import solve_expressions
from npga_jax.tracking.terms import Head
from tests.small_head_model import TINY as CFG
from tests.small_head_model import make_model
from tests.tracking.check_terms import check_jacobian


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(lambda w: jnp.asarray(0.4 * w), make_model(CFG).params)


def linear_texture(low=-1.0, cells=340):
    """Channels that are the place itself, which trilinear sampling keeps exact."""
    axis = low + 0.006 * np.arange(cells)
    ones = np.ones((cells,) * 2, np.float32)
    values = np.stack(
        [
            np.einsum("x,yz->xyz", axis, ones),
            np.einsum("y,xz->xyz", axis, ones),
            np.einsum("z,xy->xyz", axis, ones),
        ]
    )
    return Texture(jnp.asarray(values, jnp.float32), jnp.full(3, low))


@pytest.fixture(scope="module")
def texture():
    return linear_texture()


def test_chromaticity_does_not_see_shading():
    rgb = np.array([[0.6, 0.4, 0.2]])
    bright, dark = color_channels(rgb), color_channels(0.5 * rgb)
    np.testing.assert_allclose(bright[:, :2], dark[:, :2], rtol=1e-6)
    np.testing.assert_allclose(bright[0, 2] - dark[0, 2], 0.1 * np.log(2), rtol=1e-5)
    assert np.isfinite(color_channels(np.zeros((2, 3)))).all()


def test_texture_averages_what_is_near_and_knows_nothing_far_away():
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.05, 0.05, (4000, 3))
    red = points[:, :1] > 0
    channels = np.concatenate([red, np.full((4000, 2), 0.25)], axis=1)
    grid = make_texture(points, channels)
    places = jnp.array([[0.03, 0, 0], [-0.03, 0, 0], [3.0, 0, 0]])
    found = np.asarray(sample_texture(grid, places))
    np.testing.assert_allclose(found[:2, 0], [1, 0], atol=0.02)
    np.testing.assert_allclose(found[:, 1:], 0.25, atol=1e-3)
    assert found[2, 0] == pytest.approx(red.mean(), abs=0.02)


def test_jacobian_agrees_with_finite_differences(params, texture):
    rng = np.random.default_rng(1)
    points = jnp.asarray(rng.normal(size=(1, 6, 3)) * 0.2, jnp.float32)
    geo = jnp.asarray(rng.normal(size=CFG.lat_dim_geo) * 0.3, jnp.float32)
    exp = jnp.asarray(rng.normal(size=3) * 0.3, jnp.float32)
    observed = jnp.asarray(rng.normal(size=(1, 6, 3)), jnp.float32)
    term = color_term(texture, points, observed, 0.02)
    check_jacobian(params, term, Head(geo, exp, jnp.zeros(6)), rng)


def test_colors_find_a_code_that_geometry_leaves_open(params, texture):
    """Points off the surface in no way: only where they come from is observed."""
    rng = np.random.default_rng(2)
    frames, count = 2, 200
    points = jnp.asarray(rng.normal(size=(frames, count, 3)) * 0.2, jnp.float32)
    geo = jnp.asarray(rng.normal(size=CFG.lat_dim_geo) * 0.3, jnp.float32)
    true = jnp.asarray(rng.normal(size=(frames, 3)), jnp.float32)
    codes = Codes(geo=jnp.tile(geo, (frames, 1)), app=None, exp=true)
    anchors = predict_anchors(params, CFG, codes.geo)
    queries = deform(params, CFG, points, codes, anchors)
    channels = sample_texture(texture, queries[..., :3].reshape(-1, 3))
    term = color_term(texture, points, channels.reshape(frames, count, 3), 1e-4)
    # No point is near enough to the surface to count there.
    observations = Observations(
        points, jnp.zeros_like(points), jnp.ones((frames, count))
    )
    unknowns = Unknowns(geo, 0.8 * true, jnp.zeros((frames, 6)))
    damping = jnp.full(frames, 1e-3)
    step = jax.jit(solve_expressions, static_argnames="cfg")
    # Poses are held: for these few points they would stand in for codes.
    prior = PriorWeights(exp=0.0, pose_rotation=1e12, pose_translation=1e12)
    for _ in range(8):
        unknowns, damping = step(
            params,
            CFG,
            observations,
            unknowns,
            jnp.zeros(frames),
            damping,
            prior,
            Robust(0.01, 1e-9, -1.0),
            (term,),
        )
    np.testing.assert_allclose(unknowns.exp, true, atol=0.02)
