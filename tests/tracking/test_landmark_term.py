"""Landmarks: where the model has them, and what sightings of them say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.data.landmarks import NUM_LANDMARKS
from npga_jax.nphm import HeadModel
from npga_jax.nphm.config import MILLIMETRES_PER_UNIT
from npga_jax.tracking.first_landmarks import ON_MEAN_HEAD
from npga_jax.tracking.landmark_term import (
    LandmarkTable,
    Sightings,
    landmark_term,
    model_landmarks,
    packaged_table,
    place_landmarks,
)
from npga_jax.tracking.residuals import apply_pose
from npga_jax.tracking.terms import Head
from tests.small_head_model import TINY as CFG
from tests.small_head_model import make_model
from tests.tracking.check_terms import check_jacobian

COUNT = 12


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda w: jnp.asarray(0.2 * w), make_model(CFG).params)
    table = LandmarkTable(
        rng.normal(size=(COUNT, 3)) * 0.1,
        rng.normal(size=(COUNT, 3)) * 0.01,
        np.full(COUNT, 0.01),
    )
    landmarks = model_landmarks(HeadModel(CFG, params), table, np.arange(COUNT))
    head = Head(
        jnp.asarray(rng.normal(size=CFG.lat_dim_geo) * 0.3, jnp.float32),
        jnp.asarray(rng.normal(size=CFG.lat_dim_exp) * 0.3, jnp.float32),
        jnp.asarray(rng.normal(size=6) * 0.1, jnp.float32),
    )
    return params, landmarks, head


def test_the_packaged_table_is_a_face():
    table = packaged_table()
    assert table.points.shape == table.offsets.shape == (NUM_LANDMARKS, 3)
    seen = table.points + table.offsets
    for index, place in ON_MEAN_HEAD.items():
        off = np.linalg.norm(seen[index] - place) * MILLIMETRES_PER_UNIT
        assert off < 6, index
    # Subject's right is at negative x; lids lie above and below their eye.
    assert seen[33, 0] < seen[133, 0] < seen[362, 0] < seen[263, 0]
    assert seen[159, 1] > seen[145, 1] and seen[386, 1] > seen[374, 1]
    # Few landmarks slide along the face; lids and lips keep to their place.
    assert np.median(table.spread) * MILLIMETRES_PER_UNIT < 2.5
    for index in (159, 145, 386, 374, 13, 14, 61, 291):
        assert table.spread[index] * MILLIMETRES_PER_UNIT < 3


@pytest.mark.parametrize("by", ["points", "rays", "two cameras"])
@pytest.mark.parametrize("with_identity", [False, True])
def test_jacobian_agrees_with_finite_differences(small, by, with_identity):
    params, landmarks, head = small
    rng = np.random.default_rng(1)
    views = 2 if by == "two cameras" else 1
    points = rng.normal(size=(1, views * COUNT, 3)) * 0.1
    across = np.broadcast_to(np.eye(3), (1, views * COUNT, 3, 3)).copy()
    if by != "points":
        rays = rng.normal(size=(1, views * COUNT, 3))
        rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
        across -= rays[..., :, None] * rays[..., None, :]
    sightings = Sightings(points, across, np.ones((1, views * COUNT)))
    term = landmark_term(landmarks, sightings, 1.0)
    check_jacobian(params, term, head, rng, with_identity=with_identity)


def test_a_landmark_where_it_is_seen_is_not_off(small):
    params, landmarks, head = small
    places, valid, _ = place_landmarks(params, CFG, landmarks, head)
    assert valid.all()
    seen = places + landmarks.offsets
    # As a capture has it: before the pose residual.
    inverse = Head(head.geo, head.exp, head.pose)
    observed = jnp.linalg.solve(
        jax.jacobian(lambda x: apply_pose(inverse.pose, x[None])[0])(jnp.zeros(3)),
        (seen - inverse.pose[3:]).T,
    ).T
    sightings = Sightings(
        np.asarray(observed)[None],
        np.broadcast_to(np.eye(3), (1, COUNT, 3, 3)),
        np.ones((1, COUNT)),
    )
    term = landmark_term(landmarks, sightings, 1.0)
    frame = jax.tree.map(lambda x: x[0], term.frames)
    values, weights = term.evaluate(params, CFG, term.shared, frame, head, None)
    assert np.asarray(weights).min() == 1
    np.testing.assert_allclose(values, 0, atol=2e-3)
