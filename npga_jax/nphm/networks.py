"""The plain networks of the head model: layers as dicts of arrays, points as rows.

Layers are {"w": [..., in, out], "b": [..., out]} as in `npga_jax.mlp`.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.core import Array, Params

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


def linear(layer: Params, x: Array) -> jax.Array:
    """[..., in] -> [..., out]."""
    return x @ layer["w"] + layer["b"]


def apply_layers(
    layers: Sequence[Params], x: Array, activation: Activation
) -> jax.Array:
    """Linear layers with an activation between them and none at the end."""
    for layer in layers[:-1]:
        x = activation(linear(layer, x))
    return linear(layers[-1], x)


class Uniform(NamedTuple):
    """An array that is still to be drawn: uniform in +-bound."""

    shape: tuple[int, ...]
    bound: float


def plan_linear(
    fan_in: int, fan_out: int, *, batch: tuple[int, ...] = ()
) -> dict[str, Uniform]:
    """Weights and biases in +-1 / sqrt(fan_in): torch's default."""
    bound = 1.0 / math.sqrt(fan_in)
    return {
        "w": Uniform((*batch, fan_in, fan_out), bound),
        "b": Uniform((*batch, fan_out), bound),
    }


def plan_layers(
    sizes: Sequence[int], *, batch: tuple[int, ...] = ()
) -> list[dict[str, Uniform]]:
    """Layers sizes[0] -> sizes[1] -> ..., for `apply_layers`."""
    return [plan_linear(a, b, batch=batch) for a, b in itertools.pairwise(sizes)]


def plan_skip_layers(
    dim_in: int, hidden: int, num_hidden: int, dim_out: int
) -> list[dict[str, Uniform]]:
    """num_hidden + 1 layers whose middle one reads the input again (DeepSDF).

    Layer num_hidden // 2 reads [h, x] / sqrt(2), see `model.apply_deformation`.
    """
    widths = [dim_in] + [hidden] * num_hidden
    widths[num_hidden // 2] += dim_in
    outputs = [hidden] * num_hidden + [dim_out]
    return [plan_linear(a, b) for a, b in zip(widths, outputs, strict=True)]


def draw_layers(key: jax.Array, plan: Any) -> Params:
    """Puts an array in the place of every `Uniform` of a tree.

    One long draw is cut into pieces: a generator for each array would take XLA many
    times longer to compile.
    """
    leaves, tree = jax.tree.flatten(plan, is_leaf=lambda x: isinstance(x, Uniform))
    ends = np.cumsum([math.prod(leaf.shape) for leaf in leaves])
    drawn = jax.random.uniform(key, (int(ends[-1]),), minval=-1.0, maxval=1.0)
    pieces = jnp.split(drawn, ends[:-1])
    arrays = [
        leaf.bound * piece.reshape(leaf.shape)
        for leaf, piece in zip(leaves, pieces, strict=True)
    ]
    return jax.tree.unflatten(tree, arrays)
