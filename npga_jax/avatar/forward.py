"""F: where the head model's expression takes canonical points.

The head model only knows the way back, from posed to canonical points; a rasterizer
needs the way forward (NPGA, section 3.4). F is its inverse for one person, distilled by
cycle consistency (`distillation`), and cheap enough to be asked at every Gaussian in
every step: one network that reads the place and, in every layer, the code. A sum of
fields mixed by the code would cost less, but misses what few codes do, such as lids
that close, and does worse on codes that it was not distilled with
(docs/notes/avatar.md).

F reads features through columns that start at zero: what the geometry alone cannot tell
apart (lips that touch in the canonical pose) training may separate.
"""

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.avatar.bones import bind
from npga_jax.avatar.detail import HEAD_RADIUS, MOTION_SCALE
from npga_jax.core import (
    Array,
    Params,
    exact_products,
    map_rows,
    positional_encoding,
    rigid_motion,
)

NECK_HEIGHTS = (-0.125, -0.105)
"""Metres, y of the head frame: nothing moves below the first, all above the second.
Head models end in the neck; what is below stays with the head's rigid motion."""

NUM_CHIN = 64
"""Points that the jaw's motion is read from."""

BLOCK_ROWS = 9_000
"""Gaussians that pass F together on a CPU (`mlp.map_rows`)."""


def init_forward(
    key: jax.Array,
    *,
    num_features: int,
    code_mean: Array,
    code_std: Array | float,
    hidden: int,
    layers: int,
    octaves: int,
) -> Params:
    """Weights of an F that does not move anything yet.

    Args:
      code_mean: [E] subtracted from codes; not trained.
      code_std: [E] or [] they are divided by; not trained.
      hidden: width of the hidden layers.
    """
    code_mean = jnp.asarray(code_mean, jnp.float32)
    num_expr = code_mean.shape[0]
    sizes = [3 * (1 + 2 * octaves)] + [hidden] * layers
    keys = jax.random.split(key, (layers, 2))

    def matrix(key, fan_in, gain):
        return jax.random.normal(key, (fan_in, hidden)) * np.sqrt(gain / fan_in)

    return {
        "code_mean": code_mean,
        "code_std": jnp.broadcast_to(jnp.asarray(code_std, jnp.float32), (num_expr,)),
        "layers": [
            {
                "w": matrix(place_key, fan_in, 2.0),
                "code_w": matrix(code_key, num_expr, 0.25),
                "b": jnp.zeros(hidden),
            }
            for (place_key, code_key), fan_in in zip(keys, sizes[:-1], strict=True)
        ],
        "features_w": jnp.zeros((num_features, hidden)),
        "out_w": jnp.zeros((hidden, 3)),
    }


@exact_products
def displacement(
    params: Params,
    points: Array,  # [..., P, 3] canonical, head frame, metres
    features: jax.Array | None,  # [P, F]; None: as if zero
    expr: jax.Array,  # [..., E]
    *,
    octaves: int,
) -> jax.Array:
    """What F adds to canonical points: [..., P, 3], metres.

    Leading axes broadcast: the same points for several codes, or each code its own.
    """
    mean, std = jax.lax.stop_gradient((params["code_mean"], params["code_std"]))
    code = (expr - mean) / std
    hidden = positional_encoding(points / HEAD_RADIUS, octaves)
    for i, layer in enumerate(params["layers"]):
        hidden = hidden @ layer["w"]
        if i == 0 and features is not None:
            hidden = hidden + features @ params["features_w"]
        hidden = hidden + (code @ layer["code_w"] + layer["b"])[..., None, :]
        hidden = jax.nn.relu(hidden)
    low, high = NECK_HEIGHTS
    share = jnp.clip((points[..., 1:2] - low) / (high - low), 0.0, 1.0)
    return MOTION_SCALE * (hidden @ params["out_w"]) * share**2 * (3.0 - 2.0 * share)


def with_chin(params: Params, chin: np.ndarray | None) -> Params:
    """Weights with the points that the jaw's motion is read from.

    Args:
      chin: [NUM_CHIN, 3] canonical; None: unknown, and then nothing is to be bound to
        the jaw.
    """
    points = jnp.zeros((NUM_CHIN, 3)) if chin is None else jnp.asarray(chin)
    return {**params, "chin": points.astype(jnp.float32)}


def jaw_motion(
    params: Params, expr: jax.Array, *, octaves: int
) -> tuple[jax.Array, jax.Array]:
    """How the jaw moves with an expression, by what F does to the chin.

    Returns:
      Rotation [3, 3] and translation [3], metres; without gradients.
    """
    params = jax.lax.stop_gradient(params)
    chin = params["chin"]
    moved = chin + displacement(params, chin, None, expr, octaves=octaves)
    return jax.lax.stop_gradient(rigid_motion(jnp.asarray(chin), moved))


def forward_motion(
    params: Params,
    means: jax.Array,  # [N, 3] canonical, head frame, metres
    features: jax.Array | None,  # [N, F]; None: as if zero
    bindings: jax.Array,  # [N, 2] shares of skull and jaw
    expr: jax.Array,  # [E]
    *,
    octaves: int,
) -> jax.Array:
    """Where the expression takes canonical centres.

    Positions are read without a gradient, as G reads them: a Gaussian then moves as its
    image asks, and not to where F would take it elsewhere.

    Returns:
      [N, 3] posed, metres.
    """
    places = jax.lax.stop_gradient(means)
    inputs = (places,) if features is None else (places, features)

    def rows_of_f(points, features=None):
        return displacement(params, points, features, expr, octaves=octaves)

    moved = means + map_rows(rows_of_f, inputs, rows=BLOCK_ROWS)
    jaw = jaw_motion(params, expr, octaves=octaves)
    bindings = jax.lax.stop_gradient(bindings)
    return bind(means, moved, bindings, jaw)


def frozen_motion(
    params: Params,
    means: jax.Array,
    features: jax.Array,
    bindings: jax.Array,
    expr: jax.Array,
    **options,
) -> jax.Array:
    """`forward_motion` as it was distilled: not trained, and blind to features."""
    del features
    params = jax.lax.stop_gradient(params)
    return forward_motion(params, means, None, bindings, expr, **options)


def no_motion(
    params: Params,
    means: jax.Array,
    features: jax.Array,
    bindings: jax.Array,
    expr: jax.Array,
) -> jax.Array:
    """F that moves nothing: the variant without a neural head model."""
    del params, features, bindings, expr
    return means
