"""Checks that hold for any term of the fit."""

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.tracking.equations import compose
from npga_jax.tracking.terms import Head
from tests.small_head_model import TINY as CFG


def check_jacobian(params, term, head: Head, rng, *, with_identity=False, atol=3e-3):
    """The Jacobian of one frame's residuals against central differences."""
    frame = jax.tree.map(lambda x: x[0], term.frames)
    points = jnp.ones(len(jax.tree.leaves(frame)[0]))
    linear = term.linearize(
        params, CFG, term.shared, frame, head, points, with_identity
    )

    def moved(step):
        exp, geo = jnp.split(step[6:], [CFG.lat_dim_exp])
        other = Head(
            head.geo + geo if with_identity else head.geo,
            head.exp + exp,
            compose(head.pose, step[:6]),
        )
        return term.evaluate(params, CFG, term.shared, frame, other, points)

    values, weights = moved(jnp.zeros(linear.jacobian.shape[1]))
    np.testing.assert_allclose(linear.values, values, atol=1e-5)
    np.testing.assert_array_equal(linear.weights, weights)
    step = jnp.asarray(rng.normal(size=linear.jacobian.shape[1]), jnp.float32)
    size = 1e-3
    change = (moved(size * step)[0] - moved(-size * step)[0]) / (2 * size)
    used = np.asarray(weights) > 0
    assert used.any()
    np.testing.assert_allclose(
        (linear.jacobian @ step)[used], change[used], atol=atol, rtol=1e-2
    )
