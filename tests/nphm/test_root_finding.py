"""Roots of deformations and their implicit gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.nphm import model
from npga_jax.nphm.root_finding import (
    StopRules,
    find_roots,
    invert_3x3,
    invert_deformation,
    pointwise_jacobian,
    with_implicit_gradient,
)
from tests.nphm_case import (
    TINY,
    make_codes,
    make_params,
    make_points,
    open_golden_case,
)

STRICT = StopRules(converged=1e-6, diverged=10.0, max_steps=30)


def wave(x, strength=0.2):
    """A smooth deformation, invertible where strength < 1 / 3."""
    return x + strength * jnp.sin(3 * x[..., ::-1])


def test_posed_anchors_agree_with_the_official_code(monkeypatch):
    golden_checks, case, tally = open_golden_case(monkeypatch)
    golden_checks.check_roots(case, tally)
    assert tally.passed, "\n".join(tally.text())


def test_roots_are_brought_to_their_targets():
    targets = make_points(3, 20)
    roots = find_roots(wave, targets, rules=STRICT)
    assert roots.valid.all()
    assert roots.points.shape == (3, 20, 3)
    np.testing.assert_allclose(wave(roots.points), targets, atol=2e-6)
    errors = np.linalg.norm(wave(roots.points) - targets, axis=-1)
    np.testing.assert_allclose(roots.residuals, errors, atol=1e-6)
    assert np.abs(roots.points - targets).max() > 0.05


def test_an_affine_deformation_takes_one_step():
    matrix = jnp.array([[1.0, 0.5, 0.0], [-0.3, 1.2, 0.1], [0.0, 0.2, -0.8]])
    targets = make_points(1, 10)[0]
    rules = StopRules(converged=1e-5, diverged=10.0, max_steps=1)
    roots = find_roots(lambda x: x @ matrix.T + 0.1, targets, rules=rules)
    assert roots.valid.all()
    expected = np.linalg.solve(matrix, (targets - 0.1).T).T
    np.testing.assert_allclose(roots.points, expected, atol=1e-5)


def test_starts_choose_among_roots():
    targets = jnp.array([[0.25, 0.36, 0.49]])
    starts = jnp.array([[0.4, -0.7, 0.8]])
    roots = find_roots(jnp.square, targets, starts, rules=STRICT)
    np.testing.assert_allclose(roots.points, [[0.5, -0.6, 0.7]], atol=1e-5)


def test_what_has_no_root_is_not_valid_and_harms_no_other():
    def displace(x):
        # Beyond x = 0 everything falls onto one point.
        return jnp.where(x[..., :1] > 0, jnp.zeros(3) + 5.0, wave(x))

    targets = jnp.array([[0.3, 0.1, 0.2], [-0.6, 0.1, 0.2], [jnp.nan, 0.0, 0.0]])
    roots = find_roots(displace, targets, rules=STRICT)
    np.testing.assert_array_equal(roots.valid, [False, True, False])
    alone = find_roots(displace, targets[1:2], rules=STRICT)
    np.testing.assert_allclose(roots.points[1], alone.points[0], atol=1e-6)
    assert np.isfinite(roots.points[0]).all()

    def total(shift):
        def moved(x):
            return displace(x) + shift

        found = with_implicit_gradient(moved, find_roots(moved, targets, rules=STRICT))
        return jnp.nansum(found.points)

    gradient = jax.grad(total)(jnp.zeros(3))
    assert np.isfinite(gradient).all()
    # Only the valid root moves: by the rows of its inverse Jacobian.
    jacobian = jax.jacfwd(wave)(roots.points[1])
    np.testing.assert_allclose(gradient, -np.linalg.inv(jacobian).sum(0), rtol=1e-4)


def test_a_residual_too_large_ends_the_search():
    targets = make_points(1, 10)[0]
    impatient = StopRules(converged=1e-7, diverged=1e-5, max_steps=30)
    found = find_roots(wave, targets, rules=impatient)
    one_step = find_roots(wave, targets, rules=impatient._replace(max_steps=1))
    assert not found.valid.all()
    np.testing.assert_array_equal(found.points, one_step.points)


@pytest.mark.parametrize("targets_move", [False, True])
def test_implicit_gradient_agrees_with_finite_differences(targets_move):
    with jax.enable_x64(True):
        targets = jnp.asarray(np.asarray(make_points(1, 8)[0]), jnp.float64)
        weights = np.random.default_rng(0).normal(0, 1, targets.shape)
        rules = StopRules(converged=1e-12, diverged=10.0, max_steps=50)

        def total(strength):
            moving = targets * (1 + strength) if targets_move else targets

            def displace(x):
                return wave(x, strength)

            roots = find_roots(displace, moving, rules=rules)
            moved = with_implicit_gradient(
                displace, roots, moving if targets_move else None
            )
            return jnp.sum(moved.points * weights)

        compiled = jax.jit(total)
        expected = (compiled(0.2 + 1e-6) - compiled(0.2 - 1e-6)) / 2e-6
        assert abs(expected) > 0.1
        # Compiled and not: what the search closes over must not be differentiated.
        for gradient in (jax.grad(total), jax.jit(jax.grad(total))):
            np.testing.assert_allclose(gradient(0.2), expected, rtol=1e-6)


def test_posed_points_are_deformed_back_and_follow_the_codes():
    params, codes = make_params(TINY), make_codes(TINY, 2)
    rules = StopRules(converged=1e-6)
    weights = jnp.asarray(np.random.default_rng(0).normal(0, 1, (2, 6, 3)))

    @jax.jit
    def pose(codes):
        anchors = model.predict_anchors(params, TINY, codes.geo)
        roots = invert_deformation(
            params, TINY, anchors, codes, anchors, rules=rules, targets_move=True
        )
        return jnp.sum(roots.points * weights), (roots, anchors)

    (_, (roots, anchors)), gradient = jax.value_and_grad(pose, has_aux=True)(codes)
    assert roots.valid.all()
    back = model.deform(params, TINY, roots.points, codes, anchors)[..., :3]
    np.testing.assert_allclose(back, anchors, atol=2e-6)
    assert np.abs(roots.points - anchors).max() > 1e-3
    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda c: rng.normal(0, 1, c.shape), codes)

    def along(t):
        moved = jax.tree.map(lambda c, d: c + t * d, codes, direction)
        return float(pose(moved)[0])

    expected = (along(3e-3) - along(-3e-3)) / 6e-3
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
    found = sum(float(jnp.sum(g * d)) for g, d in pairs)
    assert abs(expected) > 1e-2
    np.testing.assert_allclose(found, expected, rtol=2e-2)


def test_helpers_are_the_plain_linear_algebra():
    matrices = np.random.default_rng(0).normal(0, 1, (5, 3, 3)).astype(np.float32)
    found = invert_3x3(jnp.asarray(matrices))
    np.testing.assert_allclose(
        found @ matrices, np.broadcast_to(np.eye(3), (5, 3, 3)), atol=1e-4
    )
    assert np.isfinite(invert_3x3(jnp.zeros((2, 3, 3)))).all()
    points = make_points(2, 3)
    expected = jax.vmap(jax.vmap(jax.jacfwd(wave)))(points)
    np.testing.assert_allclose(pointwise_jacobian(wave, points), expected, atol=1e-6)
