"""Settings of the process: `conftest` has made them, as every script does."""

import jax
import jax.numpy as jnp


def test_products_of_float32_are_exact_on_every_platform():
    x = jnp.ones((2, 2))
    text = jax.jit(jnp.matmul).trace(x, x).lower(lowering_platforms=("cuda",)).as_text()
    assert "precision = [HIGHEST, HIGHEST]" in text
