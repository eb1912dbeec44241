"""The plain networks of the head model: layers as dicts of arrays, points as rows.

Layers are {"w": [..., in, out], "b": [..., out]} as in `npga_jax.mlp`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from npga_jax.types import Params

SHARPNESS = 100.0
"""beta of the softplus that stands between layers of geometry."""

Activation = Callable[[jax.Array], jax.Array]


@jax.custom_jvp
def softplus(x: jax.Array) -> jax.Array:
    """log(1 + exp(100 x)) / 100 without overflow, to 1e-9 of the exact value."""
    return jnp.maximum(x, 0) + jnp.log(1 + jnp.exp(-SHARPNESS * jnp.abs(x))) / SHARPNESS


@softplus.defjvp
def _softplus_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    return softplus(x), jax.nn.sigmoid(SHARPNESS * x) * dx


def linear(layer: Params, x: jax.Array) -> jax.Array:
    """[..., in] -> [..., out]."""
    return x @ layer["w"] + layer["b"]


def apply_layers(
    layers: Sequence[Params], x: jax.Array, activation: Activation
) -> jax.Array:
    """Linear layers with an activation between them and none at the end."""
    for layer in layers[:-1]:
        x = activation(linear(layer, x))
    return linear(layers[-1], x)


def apply_skip_layers(
    layers: Sequence[Params], x: jax.Array, activation: Activation
) -> jax.Array:
    """The same, with the input joined again before the middle layer (DeepSDF).

    Before layer (n - 1) // 2 of n, h becomes [h, x] / sqrt(2).
    """
    h = x
    for i, layer in enumerate(layers):
        if i == (len(layers) - 1) // 2:
            h = jnp.concatenate([h, x], axis=-1) / math.sqrt(2.0)
        h = linear(layer, h)
        if i < len(layers) - 1:
            h = activation(h)
    return h


def init_linear(
    key: jax.Array, fan_in: int, fan_out: int, *, batch: tuple[int, ...] = ()
) -> dict[str, Any]:
    """Uniform in +-1 / sqrt(fan_in), weights and biases: torch's default."""
    bound = 1.0 / math.sqrt(fan_in)
    key_w, key_b = jax.random.split(key)
    return {
        "w": jax.random.uniform(
            key_w, (*batch, fan_in, fan_out), minval=-bound, maxval=bound
        ),
        "b": jax.random.uniform(key_b, (*batch, fan_out), minval=-bound, maxval=bound),
    }


def init_layers(
    key: jax.Array, sizes: Sequence[int], *, batch: tuple[int, ...] = ()
) -> list[Params]:
    """Layers sizes[0] -> sizes[1] -> ..., for `apply_layers`."""
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        init_linear(k, a, b, batch=batch)
        for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def init_skip_layers(
    key: jax.Array, dim_in: int, hidden: int, num_hidden: int, dim_out: int
) -> list[Params]:
    """num_hidden + 1 layers for `apply_skip_layers`."""
    widths = [dim_in] + [hidden] * num_hidden
    widths[num_hidden // 2] += dim_in
    outputs = [hidden] * num_hidden + [dim_out]
    keys = jax.random.split(key, num_hidden + 1)
    return [init_linear(k, a, b) for k, a, b in zip(keys, widths, outputs, strict=True)]
