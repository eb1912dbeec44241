"""Many points of one head: the same values as the plain model, whatever the chunks."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.nphm import model, streaming
from npga_jax.nphm.ensemble import nearest_anchors
from tests.nphm_case import (
    CONFIGS,
    GOLDENS,
    ROOT,
    TINY,
    make_codes,
    make_params,
    make_points,
    needs_goldens,
)

VALUE, SLOPE = 5e-6, 5e-5

MIDDLE = dataclasses.replace(
    TINY,
    num_anchors=21,
    num_symm_pairs=8,
    num_neighbors=10,
    hidden_dim_geo=24,
    hidden_dim_app=20,
    hidden_dim_exp=32,
    bottleneck_dim=6,
)
CASES = {
    "middle": MIDDLE,
    "one anchor, nothing but distance": dataclasses.replace(
        CONFIGS["without colour"],
        num_anchors=1,
        num_symm_pairs=0,
        num_neighbors=1,
        num_hyper=0,
    ),
}
EVERYTHING = {"with_color": True, "with_gradient": True}


def head_of(cfg):
    codes = jax.tree.map(lambda x: x[0], make_codes(cfg, 1))
    return model.HeadModel(cfg, make_params(cfg)), codes


@partial(jax.jit, static_argnames=("cfg", "posed"))
def _plain(params, cfg, points, codes, posed):
    anchors = model.predict_anchors(params, cfg, codes.geo)

    def total(x):
        queries = model.rest_queries(x, cfg)
        if posed:
            queries = model.deform(params, cfg, x, codes, anchors)
        field = model.canonical_field(
            params, cfg, queries, codes, anchors, method="dense"
        )
        return jnp.sum(field.sdf), field

    gradient, field = jax.grad(total, has_aux=True)(points)
    return *field, gradient


def plain(head, points, codes, *, posed=True):
    """The definition: sdf [N], colour [N, 3] or None, gradient [N, 3]."""
    codes = jax.tree.map(lambda x: x[None], codes)
    values = _plain(head.params, head.cfg, points[None], codes, posed)
    return jax.tree.map(lambda x: x[0], values)


def assert_same(values, expected):
    sdf, color, gradient = expected
    np.testing.assert_allclose(values.sdf, sdf, atol=VALUE)
    np.testing.assert_allclose(values.gradient, gradient, atol=SLOPE)
    assert (values.color is None) == (color is None)
    if color is not None:
        np.testing.assert_allclose(values.color, color, atol=VALUE)


@pytest.mark.parametrize(
    ("case", "posed"), [*((case, True) for case in CASES), ("middle", False)]
)
def test_values_are_those_of_the_plain_model(case, posed):
    head, codes = head_of(CASES[case])
    # At an anchor, distances have a gradient only by definition.
    anchors = model.predict_anchors(head.params, head.cfg, codes.geo[None])[0]
    points = make_points(1, 300)[0].at[: len(anchors)].set(anchors)
    expected = plain(head, points, codes, posed=posed)
    assert np.std(expected[-1]) > 1e-2
    values = streaming.evaluate_points(
        head, points, codes, posed=posed, min_weight=0, **EVERYTHING
    )
    assert_same(values, expected)
    edges = head.cfg.num_edges
    # Weights of very far edges are zero even so.
    assert 0.5 * 300 * edges < values.num_edges <= 300 * edges


def test_chunks_do_not_show_and_one_program_serves_any_number_of_points():
    head, codes = head_of(MIDDLE)
    points = np.asarray(make_points(1, 5000)[0], np.float64)
    whole = streaming.evaluate_points(head, points, codes, **EVERYTHING)
    evaluate = partial(streaming.evaluate_points, chunk_size=2048, **EVERYTHING)
    parts = evaluate(head, points, codes)
    assert_same(parts, whole[:3])
    assert parts.num_edges == whole.num_edges
    programs = streaming.evaluate_chunk._cache_size()
    for count in (777, 2048, 4097, 1, 0):
        values = evaluate(head, points[:count], codes)
        assert_same(values, [value[:count] for value in whole[:3]])
    assert streaming.evaluate_chunk._cache_size() == programs


def test_light_edges_are_left_out_and_change_next_to_nothing():
    head, codes = head_of(MIDDLE)
    points = make_points(1, 500)[0]
    everything, usual, few = (
        streaming.evaluate_points(head, points, codes, min_weight=w, **EVERYTHING)
        for w in (0.0, 1e-8, 1e-3)
    )
    assert few.num_edges < usual.num_edges < everything.num_edges
    assert_same(usual, everything[:3])
    error = np.abs(few.sdf - everything.sdf).max()
    largest_value = 10 * np.abs(everything.sdf).max()
    assert VALUE < error < MIDDLE.num_edges * 1e-3 * largest_value


def test_a_point_that_is_no_number_spoils_only_itself():
    head, codes = head_of(MIDDLE)
    points = np.array(make_points(1, 10)[0])
    points[3] = np.nan
    for values in streaming.evaluate_points(head, points, codes, **EVERYTHING)[:3]:
        finite = np.isfinite(values.reshape(10, -1))
        np.testing.assert_array_equal(finite.all(axis=1), np.arange(10) != 3)


def test_points_of_another_shape_are_refused():
    head, codes = head_of(TINY)
    with pytest.raises(InputError, match=r"\(4, 2\)"):
        streaming.evaluate_points(head, np.zeros((4, 2)), codes)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_lowers_for(platform):
    head, codes = head_of(MIDDLE)
    points = np.zeros((streaming.POINT_ROWS, 3), np.float32)
    traced = streaming.evaluate_chunk.trace(
        head.params, head.cfg, points, 5, codes, 1e-8, posed=True, **EVERYTHING
    )
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    dots = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    # Nothing is rounded to TF32 or bfloat16.
    assert len(dots) > 10
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in dots)


def test_nearest_anchors_come_in_order_and_ties_by_index():
    rng = np.random.default_rng(0)
    positions = rng.integers(-2, 3, (2, 300, 3)).astype(np.float32)
    anchors = rng.integers(-2, 3, (2, 17, 3)).astype(np.float32)
    squared = np.sum((positions[:, :, None] - anchors[:, None]) ** 2, axis=-1)
    expected = np.argsort(squared, axis=-1, kind="stable")
    assert np.mean(np.diff(np.sort(squared)) == 0) > 0.3, "there are no ties"
    for k in (1, 17):
        nearest = nearest_anchors(positions, anchors, k)
        assert nearest.dtype == jnp.int32
        np.testing.assert_array_equal(nearest, expected[..., :k])


@needs_goldens
def test_agrees_with_the_official_code_at_its_full_size(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "dev")
    import golden_case
    import golden_report

    golden = golden_report.Golden(GOLDENS / "mono_full_seed11.npz")
    case = golden_case.open_mono(golden, golden_report.Tally())
    values = streaming.evaluate_points(
        model.HeadModel(case.cfg, case.params),
        golden["points"][0],
        jax.tree.map(lambda x: x[0], case.codes),
        **EVERYTHING,
    )
    assert_same(
        values,
        (golden["out_sdf"][0, :, 0], golden["out_color"][0], golden["out_gradient"][0]),
    )
