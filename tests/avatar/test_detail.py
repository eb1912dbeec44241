"""The detail network against loops written out; what it must not do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.avatar.detail import (
    HEAD_RADIUS,
    NUM_OUTPUTS,
    OUTPUT_SCALES,
    Residuals,
    detail_residuals,
    init_detail,
    no_detail,
    residual_energy,
    wiener_filter,
    within_reach,
)
from npga_jax.avatar.forward import no_motion

N, F, E, HIDDEN, OCTAVES = 5, 3, 4, 8, 2
_rng = np.random.default_rng(0)
MEANS = _rng.normal(0, 0.1, (N, 3)).astype(np.float32)
FEATURES = _rng.normal(size=(N, F)).astype(np.float32)
EXPR = _rng.normal(size=E).astype(np.float32)
CODE_STD = np.array([1.0, 0.5, 2.0, 1.5], np.float32)
CODE_FILTER = (np.eye(E) + 0.1).astype(np.float32)


def make_detail(layers=3):
    return init_detail(
        jax.random.key(0),
        num_features=F,
        num_expr=E,
        hidden=HIDDEN,
        layers=layers,
        octaves=OCTAVES,
        code_std=CODE_STD,
        code_filter=CODE_FILTER,
    )


def with_random_outputs(params):
    """The same network with an output layer and biases that are not zero."""

    def fill(x):
        return x if np.any(x) else jnp.asarray(_rng.normal(0, 0.3, x.shape), x.dtype)

    return jax.tree.map(fill, params)


def apply(params, means=MEANS, features=FEATURES, expr=EXPR):
    return detail_residuals(params, means, features, expr, octaves=OCTAVES)


def naive_outputs(params):
    """The network row by row, with the weights read as its docstring says."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    rows = []
    for mean, feature in zip(MEANS, FEATURES, strict=True):
        x = mean.astype(np.float64) / HEAD_RADIUS
        waves = [np.sin(np.pi * 2**k * x) for k in range(OCTAVES)]
        waves += [np.cos(np.pi * 2**k * x) for k in range(OCTAVES)]
        h = np.concatenate([x, *waves, feature])
        for layer in params["layers"]:
            h = np.maximum(h @ layer["w"] + layer["b"], 0)
        out = np.zeros(NUM_OUTPUTS)
        heard = params["code_filter"] @ (EXPR / params["code_std"])
        for e in range(E):
            out += heard[e] * (h @ params["basis_w"][e] + params["basis_b"][e])
        rows.append(out)
    return np.stack(rows)


def flatten(residuals):
    """[N, 14] in units of OUTPUT_SCALES."""
    parts = jax.tree.map(lambda r, s: r.reshape(N, -1) / s, residuals, OUTPUT_SCALES)
    return np.concatenate(parts, axis=-1)


@pytest.mark.parametrize("expr", [EXPR, np.zeros(E, np.float32), 100 * EXPR])
def test_untrained_network_adds_exactly_nothing(expr):
    for residual in apply(make_detail(), expr=expr):
        np.testing.assert_array_equal(residual, 0)


@pytest.mark.parametrize("layers", [1, 3])
def test_network_equals_the_formula_written_out(layers):
    params = with_random_outputs(make_detail(layers))
    expected = naive_outputs(params)
    assert expected.shape == (N, NUM_OUTPUTS) and np.abs(expected).max() > 0.1
    np.testing.assert_allclose(flatten(apply(params)), expected, atol=1e-4)


def test_residuals_have_the_shapes_of_what_they_are_added_to():
    shapes = [r.shape for r in apply(make_detail())]
    assert shapes == [(N, 3), (N, 4), (N, 3), (N,), (N, 3)]
    assert [r.shape for r in no_detail({}, MEANS, FEATURES, EXPR)] == shapes


def test_gradient_reaches_every_weight_and_the_features():
    # More points than in the other tests, so that no unit is silent for all of them.
    means = _rng.normal(0, 0.1, (200, 3)).astype(np.float32)
    features = _rng.normal(size=(200, F)).astype(np.float32)

    def loss(params, features):
        return sum(
            jnp.sum(jnp.sin(3 * r + i))
            for i, r in enumerate(apply(params, means, features))
        )

    params = with_random_outputs(make_detail())
    grads, feature_grads = jax.grad(loss, argnums=(0, 1))(params, features)
    for name in ("code_std", "code_filter"):  # How it reads is not trained.
        assert not np.any(grads.pop(name))
    for path, grad in jax.tree_util.tree_flatten_with_path(grads)[0]:
        assert np.all(np.isfinite(grad)), path
        assert np.mean(np.asarray(grad) != 0) > 0.5, path
    # A point may lie where every unit of the last layer is silent.
    assert np.mean(np.any(np.asarray(feature_grads) != 0, axis=-1)) > 0.9


def test_first_step_can_leave_zero():
    """With an output layer of zeros, its own gradient is not zero."""
    grads = jax.grad(lambda p: jnp.sum(flatten_jax(apply(p))))(make_detail())
    assert np.all(np.any(np.asarray(grads["basis_w"]) != 0, axis=(1, 2)))
    assert np.all(np.any(np.asarray(grads["basis_b"]) != 0, axis=1))


def test_code_of_zero_leaves_the_canonical_cloud():
    params = with_random_outputs(make_detail())
    for residual in apply(params, expr=np.zeros(E, np.float32)):
        np.testing.assert_array_equal(residual, 0)


def test_residuals_are_linear_in_the_code():
    params = with_random_outputs(make_detail())
    other = EXPR[::-1].copy()
    both = flatten(apply(params, expr=2 * EXPR - 3 * other))
    apart = 2 * flatten(apply(params)) - 3 * flatten(apply(params, expr=other))
    np.testing.assert_allclose(both, apart, atol=1e-4)


def flatten_jax(residuals):
    return jnp.concatenate([r.ravel() for r in residuals])


def make_codes(spread, seed=1, frames=400):
    """Codes whose directions, not those of the axes, have these root mean squares."""
    rng = np.random.default_rng(seed)
    directions, _ = np.linalg.qr(rng.normal(size=(len(spread), len(spread))))
    signs = rng.choice([-1.0, 1.0], size=(frames, len(spread)))
    signs, _ = np.linalg.qr(signs)
    return np.sqrt(frames) * (signs * spread) @ directions.T, directions


def test_filter_keeps_what_varies_and_damps_what_hardly_does():
    spread = np.array([2.0, 0.3, 0.01])
    codes, directions = make_codes(spread)
    kept = directions.T @ wiener_filter(codes, noise=0.3) @ directions
    expected = np.diag([4 / 4.09, 0.5, 1e-4 / 0.0901])
    np.testing.assert_allclose(kept, expected, atol=1e-6)


def test_filter_without_noise_keeps_all_also_what_never_varies():
    codes, _ = make_codes(np.array([1.0, 0.2, 0.0]))
    np.testing.assert_allclose(wiener_filter(codes, noise=0.0), np.eye(3), atol=1e-6)
    kept = wiener_filter(np.zeros((5, 3), np.float32), noise=0.1)
    np.testing.assert_array_equal(kept, 0)


def test_filtered_network_does_not_hear_a_direction_without_signal():
    codes, _ = make_codes(np.array([2.0, 1.0, 0.5, 1e-4]))
    params = with_random_outputs(make_detail())
    params["code_filter"] = wiener_filter(codes / CODE_STD, noise=0.3)
    units = np.linalg.svd(codes / CODE_STD)[2] * CODE_STD
    strong, weak = (flatten(apply(params, expr=np.float32(u))) for u in units[[0, -1]])
    assert np.abs(strong).max() > 0.1
    assert np.abs(weak).max() < 1e-5


def test_positions_are_read_without_a_gradient():
    params = with_random_outputs(make_detail())
    grad = jax.grad(lambda m: jnp.sum(flatten_jax(apply(params, means=m))))(MEANS)
    np.testing.assert_array_equal(grad, 0)


def test_energy_ignores_dead_slots_and_counts_living_ones():
    alive = np.array([True, False])
    outputs = Residuals(
        means=np.array([[1.0, 2, 0], [9, 9, 9]]),
        quats=np.array([[0.0, 1, 0, 0], [9, 9, 9, 9]]),
        log_scales=np.array([[2.0, 0, 0], [9, 9, 9]]),
        logit_opacities=np.array([-3.0, 9]),
        rgb=np.array([[0.0, 0, 1], [np.nan, 9, 9]]),
    )  # 1 + 4, 1, 4, 9, 1.
    residuals = jax.tree.map(np.multiply, outputs, OUTPUT_SCALES)
    assert residual_energy(residuals, alive) == pytest.approx(20.0, rel=1e-6)
    twice = jax.tree.map(lambda r: np.repeat(r[:1], 2, axis=0), residuals)
    assert residual_energy(twice, np.array([True, True])) == pytest.approx(20.0)
    assert residual_energy(residuals, np.array([False, False])) == 0.0


def test_identity_moves_nothing():
    np.testing.assert_array_equal(
        no_motion({}, MEANS, FEATURES, np.zeros((N, 2)), EXPR), MEANS
    )


def test_a_short_reach_holds_motion_back_and_nothing_else():
    params = with_random_outputs(make_detail())
    full = apply(params)
    held = within_reach(
        params, MEANS, FEATURES, EXPR, detail_fn=lambda p, *_: apply(p), reach=0.25
    )
    expected = full._replace(means=0.25 * full.means, quats=0.25 * full.quats)
    for got, want in zip(held, expected, strict=True):
        assert np.any(want)
        np.testing.assert_allclose(got, want, rtol=1e-6)
