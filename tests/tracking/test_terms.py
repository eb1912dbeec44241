"""How evidence beside distances is weighed."""

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.tracking.equations import Equations
from npga_jax.tracking.terms import Head, Linear, Term, add_term, term_cost

HEAD = Head(jnp.zeros(1), jnp.zeros(1), jnp.zeros(6))


def line_term(scale):
    """Residuals that are a straight line of the unknowns."""

    def values(frame, head):
        return frame @ jnp.concatenate([head.pose, head.exp])

    def evaluate(params, cfg, shared, frame, head, _):
        return values(frame, head) + shared, jnp.linspace(0.5, 2.0, len(shared))

    def linearize(params, cfg, shared, frame, head, points, with_identity):
        found, weights = evaluate(params, cfg, shared, frame, head, points)
        return Linear(found, weights, frame)

    rng = np.random.default_rng(0)
    frames = jnp.asarray(rng.normal(size=(5, 7)), jnp.float32)
    shared = jnp.asarray(rng.normal(size=5), jnp.float32)
    return Term(
        frames, shared, jnp.float32(0.3), jnp.float32(scale), evaluate, linearize
    )


def test_equations_are_the_gradient_of_the_cost():
    term = line_term(0.7)
    empty = Equations(jnp.zeros((7, 7)), jnp.zeros(7), jnp.ones(1), jnp.zeros(()))
    found = add_term(empty, term, None, None, HEAD, with_identity=False)

    def cost(x):
        return term_cost(term, None, None, Head(HEAD.geo, x[6:], x[:6]), jnp.ones(1))

    slope = jax.grad(cost)(jnp.zeros(7))
    np.testing.assert_allclose(found.right, -0.5 * slope, rtol=1e-4, atol=1e-5)


def test_far_residuals_count_less():
    near, far = line_term(1e3), line_term(1e-2)
    assert term_cost(far, None, None, HEAD, jnp.ones(1)) < 1e-2 * term_cost(
        near, None, None, HEAD, jnp.ones(1)
    )


def test_the_cost_of_the_equations_is_that_of_the_place_they_are_taken_at():
    term = line_term(0.7)
    empty = Equations(jnp.zeros((7, 7)), jnp.zeros(7), jnp.ones(1), jnp.float32(2.0))
    found = add_term(empty, term, None, None, HEAD, with_identity=False)
    alone = term_cost(term, None, None, HEAD, jnp.ones(1))
    np.testing.assert_allclose(found.cost, 2.0 + alone, rtol=1e-6)
