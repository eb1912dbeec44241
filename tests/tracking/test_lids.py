"""Eyes' openings: found from points, and what they hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.nphm.config import MILLIMETRES_PER_UNIT
from npga_jax.tracking.lids import (
    Openings,
    about_openings,
    distance_to_rim,
    find_openings,
    lid_term,
)
from npga_jax.tracking.terms import Head
from tests.small_head_model import TINY as CFG
from tests.small_head_model import make_model
from tests.tracking.check_terms import check_jacobian

MM = 1 / MILLIMETRES_PER_UNIT
EYES = np.array([[-32.0, 18, 30], [32, 18, 30]]) * MM
HALF = np.array([13.0, 5, 1]) * MM


def eye_places(rng, count=6000):
    """Points about two elliptic openings, and which are within."""
    middle = EYES[rng.integers(0, 2, count)]
    off = rng.uniform(-1, 1, (count, 3)) * np.array([22.0, 14, 1]) * MM
    is_eye = ((off[:, :2] / HALF[:2]) ** 2).sum(axis=1) < 1
    return middle + off, is_eye


@pytest.fixture(scope="module")
def openings():
    return find_openings(*eye_places(np.random.default_rng(0)))


def test_the_rim_is_found_within_half_a_millimetre(openings):
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    around = np.stack([np.cos(angle), np.sin(angle), np.zeros(40)], axis=-1) * HALF
    for eye in EYES:
        found = np.asarray(distance_to_rim(openings, jnp.asarray(eye + around)))
        assert np.abs(found).mean() < 0.5 * MM
        assert distance_to_rim(openings, jnp.asarray(eye[None]))[0] < -4 * MM
    up = EYES + np.array([0, 9 * MM, 0])
    found = np.asarray(distance_to_rim(openings, jnp.asarray(up)))
    np.testing.assert_allclose(found, 4 * MM, atol=0.7 * MM)


def test_within_an_opening_skin_belongs_to_the_upper_lid(openings):
    """But close above the lower rim, which counts three times as far."""
    off = np.array([[0, -3.0, 0], [0, 3.0, 0]]) * MM
    for eye in EYES:
        found = np.asarray(distance_to_rim(openings, jnp.asarray(eye + off))) / MM
        np.testing.assert_allclose(found, [-6.0, -2.0], atol=1.2)


def test_places_far_from_the_eyes_are_not_looked_at(openings):
    places = np.concatenate([EYES, EYES - [0, 0, 60 * MM], EYES - [0, 60 * MM, 0]])
    assert (
        about_openings(openings, jnp.asarray(places)).tolist()
        == [True] * 2 + [False] * 4
    )


def test_without_eyes_there_are_no_openings():
    places, is_eye = eye_places(np.random.default_rng(1))
    assert find_openings(places, is_eye & (np.arange(len(is_eye)) < 100)) is None


def test_what_is_on_its_own_side_costs_nothing_and_the_rest_its_distance(openings):
    params = jax.tree.map(jnp.zeros_like, make_model(CFG).params)  # moves nothing
    places = np.stack([EYES[0], EYES[0], EYES[0] + [0, 9 * MM, 0]])[None]
    is_eye = np.array([[True, False, True]])
    term = lid_term(openings, places, is_eye, np.ones((1, 3)), 1.0)
    frame = jax.tree.map(lambda x: x[0], term.frames)
    head = Head(jnp.zeros(CFG.lat_dim_geo), jnp.zeros(3), jnp.zeros(6))
    off, _ = term.evaluate(params, CFG, term.shared, frame, head, None)
    np.testing.assert_allclose(off[0], 0)
    assert off[1] > 4 * MM and off[2] > 3 * MM


def test_jacobian_agrees_with_finite_differences():
    """On a map without kinks, which bilinear sampling keeps exact."""
    rng = np.random.default_rng(2)
    params = jax.tree.map(lambda w: jnp.asarray(0.1 * w), make_model(CFG).params)
    cell = 0.5 * MM
    across, up = np.meshgrid(np.arange(300), np.arange(300), indexing="ij")
    ramp = Openings(
        jnp.asarray(cell * (0.8 * across - 0.6 * up) - 0.1, jnp.float32),
        jnp.full(2, -75 * MM),
        jnp.array([-1.0, 1.0]),
    )
    places = rng.uniform(-30, 30, (1, 40, 3)) * MM
    geo = jnp.asarray(rng.normal(size=CFG.lat_dim_geo) * 0.3, jnp.float32)
    head = Head(geo, jnp.zeros(3), jnp.zeros(6))
    for is_eye in (np.zeros((1, 40), bool), np.ones((1, 40), bool)):
        term = lid_term(ramp, places, is_eye, np.ones((1, 40)), 1.0)
        frame = jax.tree.map(lambda x: x[0], term.frames)
        off, _ = term.evaluate(params, CFG, term.shared, frame, head, None)
        weights = np.asarray(off > 2 * MM, float)[None]  # away from the rim itself
        term = lid_term(ramp, places, is_eye, weights, 1.0)
        check_jacobian(params, term, head, rng)
