"""The step on a ball whose redness follows the expression."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from npga_jax.training.settings import OptimConfig
from npga_jax.training.state import average_in
from tests import small_scene
from tests.exact_products import inexact_products

NUM_STEPS = 300
CONFIG = dataclasses.replace(
    small_scene.CONFIG, steps=NUM_STEPS, optim=OptimConfig(detail=6e-3, sh=2e-2)
)


@pytest.fixture(scope="module")
def step():
    """One compilation for all tests here: a second trace is an error."""
    fn = small_scene.make_step(cfg=CONFIG)
    return jax.jit(chex.assert_max_traces(fn, n=1))


@pytest.fixture(scope="module")
def trained(step):
    """The state after NUM_STEPS, and the metrics of every step."""
    batches = small_scene.make_batches()
    state, history = small_scene.make_state(CONFIG), []
    for i in range(NUM_STEPS):
        state, metrics = step(state, batches[i % len(batches)])
        history.append(jax.device_get(metrics))
    return state, history


def test_loss_falls(trained):
    _, history = trained
    losses = [m["loss"] for m in history]
    assert np.mean(losses[26:30]) < 0.8 * np.mean(losses[:4])
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])
    assert np.mean([m["psnr"] for m in history[-4:]]) > history[0]["psnr"] + 5


def test_steps_are_counted_and_reported(trained):
    state, history = trained
    assert state.step == NUM_STEPS
    for metrics in history:
        assert metrics["is_finite"] and metrics["grad_norm"] > 0
        assert metrics["num_alive"] == small_scene.NUM_POINTS
        assert 0 < metrics["num_isects"] <= small_scene.MAX_ISECTS
        assert metrics["num_dropped"] == 0 and metrics["num_invalid"] == 0


def test_dead_slots_stay_where_they_were(trained):
    state, _ = trained
    start = small_scene.make_state(CONFIG)
    np.testing.assert_array_equal(state.alive, start.alive)
    for name in ("means", "quats", "log_scales", "logit_opacities", "sh", "features"):
        before, after = (getattr(s.params.gaussians, name) for s in (start, state))
        np.testing.assert_array_equal(before[~start.alive], after[~start.alive])
        assert np.mean(before[start.alive] != after[start.alive]) > 0.9, name


def test_expression_is_learned(step, trained):
    """Without the code, and with another frame's, the same avatar fits worse."""
    state, _ = trained
    batches = small_scene.make_batches()

    def loss(exprs):
        values = [
            step(state, batch._replace(expr=expr))[1]["l1"]
            for batch, expr in zip(batches, exprs, strict=True)
        ]
        return float(np.mean(values))

    with_codes = loss([b.expr for b in batches])
    assert loss([np.zeros_like(b.expr) for b in batches]) > 1.5 * with_codes
    assert loss([b.expr for b in batches[::-1]]) > 2.0 * with_codes


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_step_that_is_not_finite_changes_nothing_nor_do_those_after(
    step, trained, value
):
    state, _ = trained
    batch = small_scene.make_batches()[0]
    broken = batch._replace(expr=np.full_like(batch.expr, value))
    after, metrics = step(state, broken)
    assert not metrics["is_finite"]
    assert after.halted
    for _ in range(3):
        after, metrics = step(after, batch)
        assert not metrics["is_finite"] and after.halted
    after = after._replace(halted=state.halted)
    jax.tree.map(np.testing.assert_array_equal, state, after)
    after, metrics = step(after, batch)
    assert metrics["is_finite"] and after.step == state.step + 1


@pytest.mark.parametrize("name", ["viewmats", "Ks", "world_from_head"])
def test_broken_camera_is_not_finite_or_counted(step, trained, name):
    state, _ = trained
    batch = small_scene.make_batches()[0]
    broken = batch._replace(**{name: np.full_like(getattr(batch, name), np.nan)})
    after, metrics = step(state, broken)
    assert not metrics["is_finite"] or metrics["num_invalid"] > 0
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(after))


def test_weights_are_averaged_one_after_the_other(step):
    state, taken_in = small_scene.make_state(CONFIG), []
    assert not any(np.any(x) for x in jax.tree.leaves(state.average))
    for batch in small_scene.make_batches()[:4]:
        state, _ = step(state, batch)
        taken_in.append(jax.device_get(state.params))
        state = jax.jit(average_in)(state, np.float32(len(taken_in)))
    average = jax.device_get(state.average)
    expected = jax.tree.map(lambda *x: np.mean(x, axis=0), *taken_in)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        average,
        expected,
    )
    assert np.abs(average.gaussians.sh - taken_in[-1].gaussians.sh).max() > 1e-3
    jax.tree.map(np.testing.assert_array_equal, state.params, taken_in[-1])


def test_same_start_ends_the_same_to_the_last_bit(step):
    def run():
        state = small_scene.make_state(CONFIG)
        for batch in 3 * small_scene.make_batches():
            state, _ = step(state, batch)
        return state

    jax.tree.map(np.testing.assert_array_equal, run(), run())


def test_products_are_exact_whoever_calls():
    """GPUs would round the factors of what does not ask for more."""
    step, state = small_scene.make_step(cfg=CONFIG), small_scene.make_state(CONFIG)
    assert not inexact_products(step, state, small_scene.make_batches()[0])
