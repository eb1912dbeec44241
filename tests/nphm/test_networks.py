"""MonoNPHM's networks: against the official code, their dense twin and themselves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.core.math import safe_norm
from npga_jax.nphm import model
from npga_jax.nphm.codes import Codes, split_code
from npga_jax.nphm.config import EXTRA_DISTANCE, NPHMConfig
from npga_jax.nphm.ensemble import blend_weights, find_edges
from npga_jax.nphm.field import canonical_field
from npga_jax.nphm.networks import linear, softplus
from npga_jax.nphm.official import official_from_params, params_from_official
from tests.nphm_case import (
    CONFIGS,
    TINY,
    make_codes,
    make_params,
    make_points,
    open_golden_case,
)


def test_networks_agree_with_the_official_code(monkeypatch):
    """One of the reference's models; the command checks all of them."""
    golden_checks, case, tally = open_golden_case(monkeypatch)
    golden_checks.check_evaluation(case, tally, "blocks")
    golden_checks.check_deformation(case, tally)
    assert tally.passed, "\n".join(tally.text())
    assert sum(line.count for line in tally.lines.values()) >= 16


def _everything(params, cfg, points, codes, method):
    """A scalar to which every output and the gradient contribute."""
    result, gradient = model.evaluate_with_gradient(
        params, cfg, points, codes, method=method
    )
    total = jnp.sum(jnp.sin(3 * result.sdf)) + jnp.sum((safe_norm(gradient) - 1) ** 2)
    if cfg.has_color:
        total += jnp.sum(jnp.sin(2 * result.color))
    return total


@pytest.mark.parametrize(
    "name", ["few anchors", "without colour", "without hyper coordinates"]
)
def test_blocks_agree_with_the_dense_twin(name):
    cfg = CONFIGS[name]
    args = (make_params(cfg), cfg, make_points(2, 30), make_codes(cfg, 2))
    evaluate = jax.jit(model.evaluate_with_gradient, static_argnames=("cfg", "method"))
    (ours, slope), (twin, twin_slope) = (
        evaluate(*args, method=method) for method in ("blocks", "dense")
    )
    assert float(jnp.std(ours.sdf)) > 1e-3
    np.testing.assert_allclose(ours.sdf, twin.sdf, atol=3e-6)
    np.testing.assert_allclose(slope, twin_slope, atol=3e-5)
    assert (ours.color is None) == (twin.color is None) == (not cfg.has_color)
    if cfg.has_color:
        np.testing.assert_allclose(ours.color, twin.color, atol=3e-6)


def test_gradients_of_blocks_agree_with_the_dense_twin():
    """Of weights, points and codes, second order too."""
    cfg = CONFIGS["more neighbours than blending looks at"]
    args = (make_params(cfg), make_points(2, 30), make_codes(cfg, 2))
    gradient = jax.jit(jax.grad(_everything, argnums=(0, 2, 3)), static_argnums=(1, 4))
    ours, twin = (
        gradient(args[0], cfg, args[1], args[2], method)
        for method in ("blocks", "dense")
    )
    for leaf, other in zip(*map(jax.tree.leaves, (ours, twin)), strict=True):
        scale = max(1.0, float(jnp.abs(other).max(initial=0)))
        np.testing.assert_allclose(leaf, other, atol=3e-5 * scale)
    weights = ours[0]["identity"]["geo"][0]["w"]
    assert (jnp.abs(weights).max(axis=(1, 2)) > 0).all(), "each network has a gradient"


def test_gradients_agree_with_finite_differences():
    cfg = TINY
    with jax.enable_x64(True):
        args = (make_params(cfg), make_points(2, 12), make_codes(cfg, 2))
        args = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), args)
        rng = np.random.default_rng(5)
        direction = jax.tree.map(lambda x: rng.normal(0, 1, x.shape), args)

        @jax.jit
        @jax.value_and_grad
        def along(t):
            moved = jax.tree.map(lambda x, d: x + t * d, args, direction)
            return _everything(moved[0], cfg, moved[1], moved[2], "blocks")

        expected = (along(1e-6)[0] - along(-1e-6)[0]) / 2e-6
        assert abs(expected) > 1e-2
        np.testing.assert_allclose(along(0.0)[1], expected, rtol=1e-5)


def test_a_point_on_an_anchor_has_finite_gradients_of_every_order():
    params, codes = make_params(TINY), make_codes(TINY, 1)
    anchors = model.predict_anchors(params, TINY, codes.geo)
    # Hyper coordinates of zero: the query is the anchor itself.
    queries = model.rest_queries(anchors, TINY)

    def distances(queries, codes):
        anchors = model.predict_anchors(params, TINY, codes.geo)
        return jnp.sum(canonical_field(params, TINY, queries, codes, anchors).sdf)

    def eikonal(queries, codes):
        gradient = jax.grad(distances)(queries, codes)
        return jnp.sum((safe_norm(gradient) - 1) ** 2)

    @jax.jit
    def gradients(queries, codes):
        return [
            jax.grad(function, argnums=(0, 1))(queries, codes)
            for function in (distances, eikonal)
        ]

    found = gradients(queries, codes)
    for leaf in jax.tree.leaves(found):
        assert np.isfinite(leaf).all()
    for by_queries, by_codes in found:
        assert np.abs(by_queries).max() > 0
        assert np.abs(by_codes.geo).max() > 0


def test_a_mirrored_face_has_a_mirrored_field():
    """Codes of pairs exchanged: each network sees from its partner's place."""
    cfg = dataclasses.replace(TINY, num_symm_pairs=3)
    params, codes = make_params(cfg), make_codes(cfg, 1)
    left = make_points(1, 3, seed=7)[0]
    mirror = jnp.array([-1.0, 1.0, 1.0])
    anchors = jnp.stack([left, left * mirror], axis=1).reshape(1, 6, 3)
    # The extra network has no partner: it is made to say nothing.
    for branch in ("geo", "app"):
        last = params["identity"][branch][-1]
        last["w"], last["b"] = last["w"].at[-1].set(0), last["b"].at[-1].set(0)

    def exchange(code):
        glob, local = split_code(code, cfg)
        paired = local[:, :6].reshape(1, 3, 2, -1)[:, :, ::-1].reshape(1, 6, -1)
        local = jnp.concatenate([paired, local[:, 6:]], axis=1)
        return jnp.concatenate([glob, local.reshape(1, -1)], axis=-1)

    mirrored = Codes(exchange(codes.geo), exchange(codes.app), codes.exp)
    queries = jnp.pad(make_points(1, 40), ((0, 0), (0, 0), (0, 2)), constant_values=0.1)
    evaluate = jax.jit(canonical_field, static_argnames="cfg")
    field = evaluate(params, cfg, queries, codes, anchors)
    other = evaluate(params, cfg, queries.at[..., 0].multiply(-1), mirrored, anchors)
    np.testing.assert_allclose(field.sdf, other.sdf, atol=1e-6)
    np.testing.assert_allclose(field.color, other.color, atol=1e-6)
    same_place = evaluate(params, cfg, queries, mirrored, anchors)
    assert np.abs(field.sdf - same_place.sdf).max() > 1e-3


@pytest.mark.parametrize("name", CONFIGS)
def test_edges_are_the_nearest_anchors_and_their_weights_sum_to_one(name):
    cfg = CONFIGS[name]
    anchors = make_points(2, cfg.num_anchors, seed=3)
    points = make_points(2, 50)
    edges = jax.jit(find_edges, static_argnames="cfg")(
        model.rest_queries(points, cfg), anchors, cfg=cfg
    )
    np.testing.assert_allclose(edges.weights.sum(-1), 1, atol=1e-5)
    assert (np.diff(edges.weights[..., :-1], axis=-1) <= 1e-7).all(), "nearest first"
    distances = np.linalg.norm(points[:, :, None] - anchors[:, None], axis=-1)
    expected = np.argsort(distances, axis=-1)[..., : cfg.num_neighbors]
    np.testing.assert_array_equal(edges.sources[..., :-1], expected)
    assert (edges.sources[..., -1] == cfg.num_anchors).all()


def test_width_of_blending_is_the_eighth_distance_or_the_extra_one():
    cfg = CONFIGS["more neighbours than blending looks at"]
    distances = jnp.array([*np.linspace(0.1, 1.0, 10), EXTRA_DISTANCE])
    for few in (False, True):
        given = distances[jnp.array([0, 1, 2, 10])] if few else distances
        width = (EXTRA_DISTANCE if few else 0.8) / cfg.blend_std
        weights = np.exp(-0.5 * (np.asarray(given) / width) ** 2)
        expected = weights / weights.sum()
        np.testing.assert_allclose(blend_weights(given, cfg), expected, atol=1e-6)


def test_the_deformation_is_the_plain_network_on_points_and_condition():
    params, codes = make_params(TINY), make_codes(TINY, 2)
    anchors = model.predict_anchors(params, TINY, codes.geo)
    condition = model.deformation_condition(params, TINY, codes, anchors)
    points = make_points(2, 20)
    tiled = jnp.broadcast_to(condition[:, None], (2, 20, condition.shape[-1]))
    inputs = jnp.concatenate([points, tiled], axis=-1)
    first, middle, third, last = params["deformation"]["layers"]
    h = softplus(linear(first, inputs))
    h = softplus(linear(middle, jnp.concatenate([h, inputs], axis=-1) / np.sqrt(2)))
    expected = linear(last, softplus(linear(third, h)))
    expected = expected.at[..., :3].add(points)
    found = model.deform(params, TINY, points, codes, anchors)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(expected[..., :3] - points).max() > 1e-3


@pytest.mark.parametrize("name", CONFIGS)
def test_official_names_lead_there_and_back(name):
    cfg = CONFIGS[name]
    params = make_params(cfg)
    states = official_from_params(params, cfg)
    back = params_from_official(states, params["anchors_mean"], cfg)
    jax.tree.map(np.testing.assert_array_equal, params, back)


def test_first_weights_are_uniform_within_the_bounds_of_torch():
    cfg = NPHMConfig(hidden_dim_geo=24, hidden_dim_exp=32)
    anchors = np.zeros((cfg.num_anchors, 3))
    first, again, other = (
        model.init_params(jax.random.key(seed), cfg, anchors) for seed in (0, 0, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, first, again)
    layers = [*first["identity"]["app"], *first["deformation"]["layers"]]
    for layer in layers:
        bound = 1 / np.sqrt(layer["w"].shape[-2])
        assert 0.9 * bound < np.abs(layer["w"]).max() <= bound * 1.000001
        assert 0 < np.abs(layer["b"]).max() <= bound
    w = np.asarray(first["deformation"]["layers"][0]["w"])
    np.testing.assert_allclose(w.std(), 1 / np.sqrt(3 * len(w)), rtol=0.05)
    assert np.abs(w - other["deformation"]["layers"][0]["w"]).max() > 0
