"""F: where the head model's expression takes canonical points.

The head model only knows the way back, from posed to canonical points; a rasterizer
needs the way forward (NPGA, section 3.4). F is its inverse for one person, distilled by
cycle consistency (`distillation`), and cheap enough to be asked at every Gaussian in
every step: K displacement fields, mixed by coefficients that the code decides,

    F(x, f, z) = sum_k a_k(z) phi_k(x, f).

The fields do not read the code, so that one pass over the points serves any number of
codes. They read features through columns that start at zero: what the geometry alone
cannot tell apart (lips that touch in the canonical pose) training may separate.
"""

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.deformation import HEAD_RADIUS, MOTION_SCALE
from npga_jax.mlp import apply_mlp, init_mlp, positional_encoding
from npga_jax.types import Deformed, Params

NECK_HEIGHTS = (-0.125, -0.105)
"""Metres, y of the head frame: nothing moves below the first, all above the second.
Head models end in the neck; what is below stays with the head's rigid motion."""


def init_forward(
    key: jax.Array,
    *,
    num_features: int,
    code_mean: np.ndarray | jax.Array,
    code_std: np.ndarray | jax.Array,
    hidden: int,
    layers: int,
    octaves: int,
    rank: int,
) -> Params:
    """Weights of an F that does not move anything yet.

    Args:
      code_mean: [E] subtracted from codes; not trained.
      code_std: [E] or [] they are divided by; not trained.
      hidden: width of the fields' hidden layers.
      rank: number K of displacement fields.
    """
    fields_key, codes_key, linear_key = jax.random.split(key, 3)
    code_mean = jnp.asarray(code_mean, jnp.float32)
    num_expr = code_mean.shape[0]
    return {
        "code_mean": code_mean,
        "code_std": jnp.broadcast_to(jnp.asarray(code_std, jnp.float32), (num_expr,)),
        "fields": init_mlp(fields_key, [3 * (1 + 2 * octaves)] + [hidden] * layers),
        "features_w": jnp.zeros((num_features, hidden)),
        "fields_w": jnp.zeros((hidden, 3 * rank)),
        "codes": init_mlp(codes_key, [num_expr, 2 * rank]),
        "codes_w": 0.1
        * jax.random.normal(linear_key, (2 * rank + num_expr, rank))
        / np.sqrt(2 * rank + num_expr),
        "codes_b": jnp.zeros(rank),
    }


def code_coefficients(params: Params, expr: jax.Array) -> jax.Array:
    """Weights of the fields: codes [..., E] -> [..., K]."""
    mean, std = jax.lax.stop_gradient((params["code_mean"], params["code_std"]))
    code = (expr - mean) / std
    hidden = apply_mlp(params["codes"], code)
    joined = jnp.concatenate([hidden, code], axis=-1)
    return joined @ params["codes_w"] + params["codes_b"]


def displacement_fields(
    params: Params,
    points: jax.Array,  # [N, 3] canonical, head frame, metres
    features: jax.Array | None,  # [N, F]; None: as if zero
    *,
    octaves: int,
) -> jax.Array:
    """The fields at canonical points: [N, 3, K], metres per unit of a coefficient."""
    first, *rest = params["fields"]["layers"]
    hidden = positional_encoding(points / HEAD_RADIUS, octaves) @ first["w"]
    if features is not None:
        hidden = hidden + features @ params["features_w"]
    hidden = jax.nn.relu(hidden + first["b"])
    hidden = apply_mlp({"layers": rest}, hidden)
    fields = MOTION_SCALE * (hidden @ params["fields_w"])
    low, high = NECK_HEIGHTS
    share = jnp.clip((points[:, 1] - low) / (high - low), 0.0, 1.0)
    fields = fields * (share**2 * (3.0 - 2.0 * share))[:, None]
    return fields.reshape(points.shape[0], 3, -1)


def forward_motion(
    params: Params,
    means: jax.Array,  # [N, 3] canonical, head frame, metres
    features: jax.Array | None,  # [N, F]; None: as if zero
    expr: jax.Array,  # [E]
    *,
    octaves: int,
) -> Deformed:
    """Moves canonical centres to where the expression takes them.

    Positions are read without a gradient, as G reads them: a Gaussian then moves as its
    image asks, and not to where F would take it elsewhere.
    """
    fields = displacement_fields(
        params, jax.lax.stop_gradient(means), features, octaves=octaves
    )
    return Deformed(means=means + fields @ code_coefficients(params, expr))


def frozen_motion(
    params: Params, means: jax.Array, features: jax.Array, expr: jax.Array, **options
) -> Deformed:
    """`forward_motion` as it was distilled: not trained, and blind to features."""
    del features
    return forward_motion(jax.lax.stop_gradient(params), means, None, expr, **options)


def with_fields(params: Params, fields: jax.Array) -> Params:
    """F's weights and its fields at the centres [N, 3, K], for `cached_motion`."""
    return {**params, "fields_at_means": fields}


def cached_motion(
    params: Params, means: jax.Array, features: jax.Array, expr: jax.Array
) -> Deformed:
    """`frozen_motion` without evaluating the fields: they are in `params`.

    Centres move far less than the fields change over, so that fields of some steps ago
    serve as well as new ones.
    """
    del features
    params = jax.lax.stop_gradient(params)
    displacement = params["fields_at_means"] @ code_coefficients(params, expr)
    return Deformed(means=means + displacement)
