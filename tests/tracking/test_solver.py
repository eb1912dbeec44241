"""The fit: Jacobians, steps, and recovery of known codes with the packaged prior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.nphm.config import MILLIMETRES_PER_UNIT
from npga_jax.nphm.model import HeadModel
from npga_jax.nphm.surface import project_to_surface
from npga_jax.prior.heldout import codes_of, scan_prior
from npga_jax.tracking import schedule
from npga_jax.tracking.equations import (
    Observations,
    Robust,
    Unknowns,
    compose,
    facing_weights,
    point_weights,
    robust_cost,
)
from npga_jax.tracking.head_prior import open_prior
from npga_jax.tracking.residuals import (
    apply_pose,
    distances,
    expression_residuals,
    identity_residuals,
    rotation_matrix,
)
from tests.small_head_model import TINY as CFG
from tests.small_head_model import make_model


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda w: jnp.asarray(0.4 * w), make_model(CFG).params)
    points = jnp.asarray(rng.normal(size=(7, 3)) * 0.2, jnp.float32)
    geo = jnp.asarray(rng.normal(size=CFG.lat_dim_geo) * 0.3, jnp.float32)
    exp = jnp.asarray(rng.normal(size=3) * 0.3, jnp.float32)
    return params, points, geo, exp


_identity_residuals = jax.jit(identity_residuals, static_argnames="cfg")
_expression_residuals = jax.jit(expression_residuals, static_argnames="cfg")


def test_each_point_gets_its_own_row_of_the_jacobian(small):
    params, points, geo, exp = small
    result = _identity_residuals(params, CFG, points, geo, exp)

    @jax.jit
    def moved(pose, e, g):
        return distances(params, CFG, apply_pose(pose, points), g, e)

    rng = np.random.default_rng(1)
    step = rng.normal(size=result.jacobian.shape[1]).astype(np.float32)
    parts = tuple(jnp.split(jnp.asarray(step), [6, 9]))
    found, change = jax.jvp(moved, (jnp.zeros(6), exp, geo), parts)
    np.testing.assert_allclose(result.sdf, found, atol=1e-6)
    np.testing.assert_allclose(result.jacobian @ step, change, atol=1e-4)


def test_expression_residuals_are_the_first_columns(small):
    params, points, geo, exp = small
    few = _expression_residuals(params, CFG, points, geo, exp)
    all_ = _identity_residuals(params, CFG, points, geo, exp)
    np.testing.assert_allclose(few.sdf, all_.sdf, atol=1e-6)
    np.testing.assert_allclose(few.normals, all_.normals, atol=1e-5)
    np.testing.assert_allclose(few.jacobian, all_.jacobian[:, :9], atol=1e-5)


_rotation = jax.jit(rotation_matrix)
_composed = jax.jit(compose)


@pytest.mark.parametrize("length", [0.0, 1e-5, 0.3, 2.5, np.pi])
def test_rotation_matrices_turn_and_compose(length):
    vector = jnp.array([0.48, -0.6, 0.64]) * length
    rotation = _rotation(vector)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    trace = 1 + 2 * np.cos(length)
    np.testing.assert_allclose(jnp.trace(rotation), trace, atol=1e-5)
    assert np.isfinite(jax.jit(jax.jacrev(rotation_matrix))(vector)).all()
    update = jnp.array([0.1, 0.05, -0.02, 0.3, 0.2, 0.1])
    pose = jnp.concatenate([vector, jnp.array([0.1, -0.2, 0.3])])
    points = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)))
    np.testing.assert_allclose(
        apply_pose(_composed(pose, update), points),
        apply_pose(update, apply_pose(pose, points)),
        atol=2e-5,
    )


@pytest.mark.parametrize("axis", [[1, 0, 0], [0, -1, 0], [0, 0, 1], [0.48, -0.6, 0.64]])
def test_a_half_turn_is_not_lost(axis):
    """Its matrix is symmetric: the axis is not in the antisymmetric part."""
    half = jnp.array(axis) * np.pi
    pose = jnp.concatenate([half / 2, jnp.zeros(3)])
    found = _composed(pose, pose)
    np.testing.assert_allclose(jnp.linalg.norm(found[:3]), np.pi, atol=1e-5)
    np.testing.assert_allclose(_rotation(found[:3]), _rotation(half), atol=1e-5)


def test_outliers_and_turned_points_do_not_count():
    robust = Robust(scale=0.01, cutoff=0.05, min_cosine=0.5)
    up = jnp.array([[0.0, 0, 1]] * 4)
    normals = jnp.array([[0.0, 0, 1], [0, 0, -1], [0, 0, 0], [0, 0, 1]])
    residual = jnp.array([0.0, 0.0, 0.0, 0.06])
    facing = facing_weights(up, normals, jnp.ones(4), robust)
    weights = point_weights(residual, facing, robust)
    np.testing.assert_allclose(weights, [1, 0, 1, 0], atol=1e-6)
    cost = robust_cost(jnp.array([1e-4, 1.0, 10.0]), jnp.ones(3), robust)
    assert cost < 2 * 0.01**2 + 1e-7  # Far points cost no more than the scale.


@pytest.fixture(scope="module")
def known():
    """Two frames of a random head of the packaged prior, seen as points."""
    loaded = open_prior(None)
    rng = np.random.default_rng(4)
    cfg = loaded.model.cfg
    geo = np.zeros(cfg.lat_dim_geo, np.float32)
    geo[: cfg.lat_dim_glob] = (
        0.8 * loaded.geo_std[: cfg.lat_dim_glob] * rng.normal(size=cfg.lat_dim_glob)
    )
    exp = (0.6 * loaded.exp_std * rng.normal(size=(2, cfg.lat_dim_exp))).astype("f4")
    start = rng.normal(size=(1500, 3))
    start /= np.linalg.norm(start, axis=-1, keepdims=True)
    start = start * [0.26, 0.36, 0.3] + [0, 0, -0.08]
    start = start[(start[:, 1] > -0.4) & (start[:, 2] > -0.1)][:600]
    clouds, normals = [], []
    for e in exp:
        found = project_to_surface(loaded.model, start, codes_of(loaded, geo, e))
        # A crease may lie between a point and the surface; few points meet one.
        assert np.quantile(np.abs(found.residual), 0.97) < 1e-3
        clouds.append(found.points)
        normals.append(found.normals)
    return loaded, geo, exp, np.stack(clouds), np.stack(normals)


@pytest.mark.slow
def test_pose_and_codes_of_a_known_head_are_recovered(known):
    loaded, _, _, clouds, normals = known
    turn = np.asarray(rotation_matrix(jnp.array([0.1, -0.15, 0.05])))
    shift = np.array([0.05, -0.04, 0.06])
    observations = Observations(
        points=jnp.asarray((clouds - shift) @ turn, jnp.float32),
        normals=jnp.asarray(normals @ turn, jnp.float32),
        weights=jnp.ones(clouds.shape[:2]),
    )
    params = jax.tree.map(jnp.asarray, loaded.model.params)
    model = HeadModel(loaded.model.cfg, params)
    prior = scan_prior(loaded, noise_mm=1.0)
    unknowns = schedule.start(model.cfg, 2)
    unknowns = schedule.fit_poses(model, observations, unknowns, prior)
    unknowns = schedule.fit_identity(model, observations, unknowns, np.zeros(2), prior)
    for i in range(2):
        moved = apply_pose(unknowns.pose[i], observations.points[i])
        residual = distances(params, model.cfg, moved, unknowns.geo, unknowns.exp[i])
        assert np.median(np.abs(residual)) * MILLIMETRES_PER_UNIT < 0.3
        # Where the head was: rotation and translation to a few millimetres.
        np.testing.assert_allclose(moved, clouds[i], atol=0.03)


def points_behind(params, cfg, known, count):
    """Points 2.5 mm inside, far from creases: [2, count, 3], and rows in the clouds.

    In a crease the surface behind a point may face as the turned point does.
    """
    _, geo, exp, clouds, normals = known
    behind = clouds - 0.01 * normals
    worst = np.full(clouds.shape[:2], -np.inf)
    for codes in (exp, np.zeros_like(exp)):
        for i, code in enumerate(codes):
            gradient = np.asarray(
                _expression_residuals(
                    params, cfg, jnp.asarray(behind[i], jnp.float32), geo, code
                ).normals
            )
            length = np.linalg.norm(gradient, axis=-1)
            cosine = -np.sum(normals[i] * gradient, axis=-1) / length
            worst[i] = np.maximum(worst[i], cosine)
    rows = np.argsort(worst, axis=1)[:, :count]
    assert np.take_along_axis(worst, rows, axis=1).max() < -0.9
    return np.take_along_axis(behind, rows[..., None], axis=1), rows


def test_padding_and_turned_points_do_not_count(known):
    loaded, geo, exp, clouds, normals = known
    params = jax.tree.map(jnp.asarray, loaded.model.params)
    model = HeadModel(loaded.model.cfg, params)
    points = np.concatenate([clouds, np.full((2, 50, 3), 0.1)], axis=1)
    padded = np.concatenate([normals, np.zeros((2, 50, 3))], axis=1)
    weights = np.concatenate([np.ones((2, 600)), np.zeros((2, 50))], axis=1)
    # The normal test drops these, much as they would weigh.
    behind, rows = points_behind(params, model.cfg, known, 50)
    outward = np.take_along_axis(normals, rows[..., None], axis=1)
    turned = np.concatenate([clouds, behind], axis=1)
    turned_normals = np.concatenate([normals, -outward], axis=1)
    heavy = np.concatenate([np.ones((2, 600)), np.full((2, 50), 1e3)], axis=1)
    results = []
    for cloud, normal, weight in (
        (clouds, normals, np.ones((2, 600))),
        (points, padded, weights),
        (turned, turned_normals, heavy),
    ):
        observations = Observations(
            *(jnp.asarray(x, jnp.float32) for x in (cloud, normal, weight))
        )
        start = Unknowns(jnp.asarray(geo), jnp.zeros_like(exp), jnp.zeros((2, 6)))
        stages = (schedule.FitStage(0.05, 0.2, 0.0, 3),)
        results.append(
            schedule.fit_expressions(
                model, observations, start, np.zeros(2), scan_prior(loaded), stages
            )
        )
    np.testing.assert_allclose(results[0].exp, results[1].exp, atol=2e-3)
    np.testing.assert_allclose(results[0].exp, results[2].exp, atol=2e-3)
    assert np.abs(results[0].exp).max() > 0.05


def test_smoothness_pulls_neighbours_together(known):
    loaded, geo, exp, clouds, normals = known
    params = jax.tree.map(jnp.asarray, loaded.model.params)
    model = HeadModel(loaded.model.cfg, params)
    observations = Observations(
        jnp.asarray(clouds), jnp.asarray(normals), jnp.ones((2, 600))
    )
    start = Unknowns(jnp.asarray(geo), jnp.zeros_like(exp), jnp.zeros((2, 6)))
    gaps = []
    for smooth in (0.0, 3e4):
        prior = scan_prior(loaded)._replace(smooth_exp=smooth)
        links = np.array([0.0, 1.0])
        fitted = schedule.fit_expressions(model, observations, start, links, prior)
        gaps.append(float(jnp.linalg.norm(fitted.exp[1] - fitted.exp[0])))
    assert gaps[1] < 0.5 * gaps[0]
