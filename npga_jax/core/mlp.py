"""Small multi-layer perceptrons as plain pytrees of arrays."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from npga_jax.core.precision import exact_products
from npga_jax.core.types import Array, Params


def positional_encoding(x: Array, num_octaves: int) -> jax.Array:
    """Appends sines and cosines of pi * 2^k * x, k < num_octaves.

    Args:
      x: [..., D], of the order of 1.

    Returns:
      [..., D * (1 + 2 * num_octaves)]; x itself comes first.
    """
    if num_octaves == 0:
        return jnp.asarray(x)
    angles = x[..., None, :] * (math.pi * 2.0 ** jnp.arange(num_octaves))[:, None]
    waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-2)
    return jnp.concatenate([x, waves.reshape(*x.shape[:-1], -1)], axis=-1)


def init_mlp(key: jax.Array, sizes: Sequence[int]) -> Params:
    """He-initialised layers of sizes[0] -> sizes[1] -> ..., biases zero."""
    layers = []
    for k, fan_in, fan_out in zip(
        jax.random.split(key, len(sizes) - 1), sizes[:-1], sizes[1:], strict=True
    ):
        w = jax.random.normal(k, (fan_in, fan_out)) * math.sqrt(2.0 / fan_in)
        layers.append({"w": w, "b": jnp.zeros(fan_out)})
    return {"layers": layers}


@exact_products
def apply_mlp(params: Params, x: jax.Array) -> jax.Array:
    """Runs the layers with a ReLU after each of them, the last one included."""
    for layer in params["layers"]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x


def map_rows(fn: Callable[..., Any], arrays: Sequence[jax.Array], *, rows: int) -> Any:
    """`fn(*arrays)` for a function that treats rows alike; on a CPU, block by block.

    Hidden layers of a block stay in the cache, and are computed again for the gradient
    instead of being written and read: on a CPU that is quicker than all rows at once,
    which are bound by memory. Other devices get all rows at once.

    Args:
      fn: of arrays [R, ...], for any R; gives arrays [R, ...], or a tree of them.
      arrays: [N, ...] each.
      rows: about how many a block has.
    """
    count = arrays[0].shape[0]
    num_blocks = -(-count // rows)
    if num_blocks <= 1:
        return fn(*arrays)
    size = -(-count // num_blocks)

    def in_blocks(*arrays):
        def cut(x):
            padding = [(0, num_blocks * size - count)] + [(0, 0)] * (x.ndim - 1)
            return jnp.pad(x, padding).reshape(num_blocks, size, *x.shape[1:])

        block_fn = jax.checkpoint(lambda block: fn(*block))
        out = jax.lax.map(block_fn, tuple(cut(x) for x in arrays))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], out)

    return jax.lax.platform_dependent(*arrays, cpu=in_blocks, default=fn)
