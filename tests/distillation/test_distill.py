"""Distillation on a ball: gradients, what the cycle closes to, and what it finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.distillation import distill as module
from npga_jax.distillation.distill import (
    cycle_error,
    distill,
    distillation_loss,
    initial_forward,
    pose_points,
)
from npga_jax.distillation.person import canonicalize, make_backward, move_back
from npga_jax.distillation.roots import pose_by_roots
from npga_jax.distillation.sampling import draw
from npga_jax.nphm.config import METRES_PER_UNIT
from npga_jax.nphm.model import deform, predict_anchors
from tests.distillation.ball_person import (
    CODES,
    HELD_OUT,
    NUM_FEATURES,
    OPTIONS,
    distilled,
    make_person,
)


def lengths(error):
    return np.linalg.norm(np.asarray(error), axis=-1)


def test_the_way_back_is_the_head_models_own():
    person = make_person()
    points = np.random.default_rng(2).uniform(-0.1, 0.1, (20, 3)).astype(np.float32)
    canonical, hyper = canonicalize(person, points, CODES[0])
    codes = jax.tree.map(lambda x: jnp.asarray(x)[None], person.codes(CODES[0]))
    params, cfg = person.model.params, person.model.cfg
    anchors = predict_anchors(params, cfg, codes.geo)
    expected = deform(params, cfg, points[None] / METRES_PER_UNIT, codes, anchors)[0]
    np.testing.assert_allclose(canonical, expected[:, :3] * METRES_PER_UNIT, atol=1e-6)
    np.testing.assert_allclose(hyper, expected[:, 3:], atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_frames_points_do_not_know_how_many_they_are(monkeypatch, count):
    monkeypatch.setattr("npga_jax.distillation.person._BLOCK", 4)
    person = make_person()
    points = np.random.default_rng(2).uniform(-0.1, 0.1, (20, 3)).astype(np.float32)
    canonical, hyper = canonicalize(person, points, CODES[0])
    first, first_hyper = canonicalize(person, points[:count], CODES[0])
    np.testing.assert_allclose(first, canonical[:count], atol=1e-7)
    np.testing.assert_allclose(first_hyper, hyper[:count], atol=1e-6)


def test_frames_of_about_as_many_points_share_a_program(caplog):
    person = make_person()
    points = np.zeros((20, 3), np.float32)
    canonicalize(person, points[:19], CODES[0])
    with jax.log_compiles():
        canonicalize(person, points, CODES[0])
        assert not [r for r in caplog.messages if "ompil" in r]
        jax.jit(lambda x: x * 3)(1.5)
        assert [r for r in caplog.messages if "ompil" in r]


def test_gradient_of_the_loss_is_its_slope(monkeypatch):
    person = make_person()
    backward = make_backward(person)
    _, domain, _ = distilled()
    params = initial_forward(
        CODES.mean(axis=0), 1.0, num_features=NUM_FEATURES, options=OPTIONS
    )
    # NumPy's arrays: JAX would compile each little sum for each shape.
    params = jax.tree.map(np.asarray, params)
    rng = np.random.default_rng(3)

    def noise(leaf, size):
        return rng.normal(0, size, leaf.shape).astype(np.float32)

    params["out_w"] = noise(params["out_w"], 0.3)
    sample = draw(jax.random.key(1), domain, 64, 4)

    # Which pairs are compared is not differentiated.
    later = sample._replace(points=sample.points[32:])
    pairs = module.posed_pairs(params, backward, later, octaves=OPTIONS.octaves)
    monkeypatch.setattr(module, "posed_pairs", lambda *_, **__: pairs)

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        return distillation_loss(
            params,
            backward,
            sample,
            octaves=OPTIONS.octaves,
            far_weight=0.05,
            fold_weight=10.0,
        )

    slope = jax.tree.map(np.asarray, loss(params)[1])
    for name in ("layers", "out_w"):
        way = jax.tree.map(lambda leaf: noise(leaf, 1.0), params[name])

        def moved(step, name=name, way=way):
            part = jax.tree.map(
                lambda x, d: x + np.float32(step) * d, params[name], way
            )
            return float(loss(params | {name: part})[0])

        step = 3e-4  # Longer ones cross the kinks of the network and of the lengths.
        measured = (moved(step) - moved(-step)) / (2 * step)
        products = jax.tree.map(lambda g, d: np.sum(g * d), slope[name], way)
        said = float(sum(jax.tree.leaves(products)))
        assert said == pytest.approx(measured, rel=0.02, abs=0.01), name
    for name in ("code_mean", "code_std"):
        np.testing.assert_array_equal(slope[name], 0)


def folded_forward():
    """An F that nobody has trained, which folds space in places; points and codes."""
    params = initial_forward(
        CODES.mean(axis=0), 1.0, num_features=NUM_FEATURES, options=OPTIONS
    )
    params = jax.tree.map(np.asarray, params)
    rng = np.random.default_rng(5)
    params["out_w"] = rng.normal(0, 0.5, params["out_w"].shape).astype(np.float32)
    points = rng.uniform(-0.08, 0.08, (40, 3)).astype(np.float32)
    return params, points, CODES[:3].astype(np.float32)


def test_determinants_are_volumes_of_what_f_makes_of_a_little_cube():
    params, points, codes = folded_forward()
    found = module.determinants(params, points, codes, octaves=OPTIONS.octaves)
    assert found.shape == (3, 40)
    # In float64, so that the edges can be short enough to be straight.
    with jax.enable_x64(True):
        wide = jax.tree.map(np.float64, (params, points, codes))
        edge = 1e-6

        def pose(points):
            posed = pose_points(wide[0], points, wide[2], octaves=OPTIONS.octaves)
            return np.asarray(posed)

        sides = [
            (pose(wide[1] + edge * axis) - pose(wide[1] - edge * axis)) / (2 * edge)
            for axis in np.eye(3)
        ]
    expected = np.linalg.det(np.stack(sides, axis=-1))
    np.testing.assert_allclose(found, expected, rtol=0.01, atol=0.01)
    assert (expected < 0).any() and (expected > 0.1).any()


def test_folding_is_what_determinants_lack_and_its_gradient_unfolds():
    params, points, codes = folded_forward()

    @jax.jit
    @jax.value_and_grad
    def folding(params):
        return module.folding(params, points, codes, octaves=OPTIONS.octaves)

    lacking, slope = jax.tree.map(np.asarray, folding(params))
    found = module.determinants(params, points, codes, octaves=OPTIONS.octaves)
    expected = np.mean(np.maximum(0.1 - np.asarray(found), 0))
    assert lacking == pytest.approx(expected, rel=1e-4) and lacking > 0
    down = slope["out_w"]
    step = np.float32(1e-3 * lacking / np.sum(down**2))
    after = float(folding(params | {"out_w": params["out_w"] - step * down})[0])
    # One part in a thousand, as the slope says.
    assert lacking - after == pytest.approx(1e-3 * lacking, rel=0.05)


def test_nothing_that_is_not_folded_is_pulled():
    _, points, codes = folded_forward()
    still = initial_forward(
        CODES.mean(axis=0), 1.0, num_features=NUM_FEATURES, options=OPTIONS
    )
    still = jax.tree.map(np.asarray, still)
    assert module.folding(still, points, codes, octaves=OPTIONS.octaves) == 0


def test_distillation_closes_the_cycle_on_codes_it_has_not_seen():
    params, domain, backward = distilled()
    points, codes = domain.surface[::2], jnp.asarray(HELD_OUT)
    still = initial_forward(
        CODES.mean(axis=0), 1.0, num_features=NUM_FEATURES, options=OPTIONS
    )
    before = lengths(
        cycle_error(still, backward, points, codes, octaves=OPTIONS.octaves)
    )
    after = lengths(
        cycle_error(params, backward, points, codes, octaves=OPTIONS.octaves)
    )
    assert np.median(before) > 1.5
    assert np.median(after) < 0.25 * np.median(before)
    assert np.quantile(after, 0.99) < 0.5 * np.median(before)


def test_forward_agrees_with_broydens_roots():
    params, domain, backward = distilled()
    points = np.asarray(domain.surface[::4])
    ours = np.asarray(pose_points(params, points, HELD_OUT, octaves=OPTIONS.octaves))
    starts = np.broadcast_to(points, ours.shape)
    roots, valid = pose_by_roots(backward, points, HELD_OUT, starts)
    assert valid.mean() > 0.99
    back, _ = move_back(backward, jnp.asarray(roots), jnp.asarray(HELD_OUT))
    closed = lengths(back - points)[valid]
    assert closed.max() < 2e-5  # Metres.
    motion, miss = lengths(roots - points)[valid], lengths(roots - ours)[valid]
    assert np.median(miss) < 0.25 * np.median(motion)


def test_nothing_moves_far_from_the_head():
    params, _, _ = distilled()
    far = 0.3 * np.array([[1, 1, 1], [-1, 0.5, -1], [0, 1, -1]], np.float32)
    posed = pose_points(params, jnp.asarray(far), HELD_OUT, octaves=OPTIONS.octaves)
    assert lengths(posed - far).max() < 0.02


def test_divergence_is_a_sentence(monkeypatch):
    _, domain, backward = distilled()
    broken = backward._replace(identity=backward.identity * np.nan)
    monkeypatch.setattr(module, "make_domain", lambda *_: (domain, broken))
    with pytest.raises(InputError, match=r"diverged at step 0 .*--prior"):
        distill(make_person(), CODES, num_features=2, options=OPTIONS, progress=False)


def test_as_many_steps_as_asked_for(monkeypatch):
    """Steps are made many a call; those beyond the last leave F as it is."""
    _, domain, backward = distilled()
    monkeypatch.setattr(module, "make_domain", lambda *_: (domain, backward))

    def run(steps_a_call):
        monkeypatch.setattr(module, "_STEPS_A_CALL", steps_a_call)
        options = OPTIONS._replace(steps=3, num_points=32)
        params, _ = distill(
            make_person(), CODES, num_features=2, options=options, progress=False
        )
        return params

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), run(3), run(8)
    )
