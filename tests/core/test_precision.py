import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.core.precision import exact_products
from tests.exact_products import inexact_products


@exact_products
def square(x: jax.Array, depth: int = 1) -> jax.Array:
    return x @ x if depth == 0 else square(x, depth - 1)


def test_products_and_their_gradients_are_exact_and_nothing_else_changes():
    x = jnp.eye(3)
    with jax.default_matmul_precision(None):
        total = lambda x: jnp.sum(square(x))  # noqa: E731
        for fn in (square, jax.jit(square), jax.grad(total), jax.hessian(total)):
            assert not inexact_products(fn, x)
        assert inexact_products(lambda x: square(x) @ x, x), "it reaches too far"
        assert jax.config.jax_default_matmul_precision is None
    np.testing.assert_array_equal(square(x + 1), (x + 1) @ (x + 1))
