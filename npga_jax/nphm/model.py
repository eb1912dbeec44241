"""MonoNPHM as pure functions: anchors, backward deformation, posed field.

Sources: Giebenhain et al., MonoNPHM (CVPR 2024), and its repository's networks. Every
function takes S heads at once: points [S, P, 3] in NPHM units, codes [S, ...].
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.core import Array, Params, exact_products
from npga_jax.nphm.codes import Codes
from npga_jax.nphm.config import NPHMConfig
from npga_jax.nphm.field import EnsembleMethod, canonical_field
from npga_jax.nphm.networks import (
    apply_layers,
    draw_layers,
    linear,
    plan_layers,
    plan_linear,
    plan_skip_layers,
    softplus,
)


class HeadModel(NamedTuple):
    """Sizes and weights that belong together."""

    cfg: NPHMConfig
    params: Params


class Evaluation(NamedTuple):
    """The model at posed points."""

    sdf: jax.Array  # [S, P] NPHM units, positive outside
    color: jax.Array | None  # [S, P, 3] in [-1, 1]; None without colour
    queries: jax.Array  # [S, P, D] canonical position and hyper coordinates
    anchors: jax.Array  # [S, n, 3] canonical


@partial(jax.jit, static_argnames="cfg")
def init_params(key: jax.Array, cfg: NPHMConfig, anchors_mean: Array) -> Params:
    """Random weights as torch's default would draw them (MonoNPHM's start).

    Args:
      key: random key.
      cfg: sizes.
      anchors_mean: [n, 3] anchors of the mean head, NPHM units. Not trained.

    Returns:
      {"anchors_mean", "identity": {"pos", "geo", "app", "bottleneck"},
      "deformation": {"compressor", "layers"}}; no "app" and "bottleneck" without
      colour.
    """
    drawn = draw_layers(key, _plan(cfg))
    return {"anchors_mean": jnp.asarray(anchors_mean, jnp.float32), **drawn}


def _plan(cfg: NPHMConfig) -> dict[str, Any]:
    """What to draw."""
    batch = (cfg.num_types,)
    sizes = [cfg.lat_dim_glob + cfg.lat_dim_loc_geo + cfg.query_dim]
    sizes += [cfg.hidden_dim_geo] * cfg.num_layers_geo + [1]
    width = cfg.hidden_dim_pos
    identity = {
        "pos": plan_layers([cfg.lat_dim_glob, width, width, 3 * cfg.num_anchors]),
        "geo": plan_layers(sizes, batch=batch),
    }
    if cfg.has_color:
        narrow = cfg.bottleneck_dim
        sizes = [cfg.lat_dim_glob + cfg.lat_dim_loc_app + narrow]
        sizes += [cfg.hidden_dim_app] * cfg.num_layers_app + [3]
        identity["app"] = plan_layers(sizes, batch=batch)
        identity["bottleneck"] = plan_layers([cfg.hidden_dim_geo, narrow, narrow])
    compressed = cfg.lat_dim_geo + 3 * cfg.num_anchors
    deformation = {
        "compressor": plan_linear(compressed, cfg.lat_dim_id),
        "layers": plan_skip_layers(
            3 + cfg.lat_dim_id + cfg.lat_dim_exp,
            cfg.hidden_dim_exp,
            cfg.num_layers_exp,
            3 + cfg.num_hyper,
        ),
    }
    return {"identity": identity, "deformation": deformation}


@exact_products
def predict_anchors(params: Params, cfg: NPHMConfig, geo: Array) -> jax.Array:
    """Anchors of each head: [S, lat_dim_geo] -> [S, n, 3], canonical."""
    glob = geo[..., : cfg.lat_dim_glob]
    offsets = apply_layers(params["identity"]["pos"], glob, jax.nn.relu)
    return params["anchors_mean"] + offsets.reshape(*glob.shape[:-1], -1, 3)


@exact_products
def deformation_condition(
    params: Params, cfg: NPHMConfig, codes: Codes, anchors: jax.Array
) -> jax.Array:
    """What the deformation network reads beside the point: [S, C].

    The identity, compressed by one linear layer, and the expression code.
    """
    flat = anchors.reshape(*anchors.shape[:-2], -1)
    inputs = jnp.concatenate([codes.geo, flat], axis=-1)
    identity = linear(params["deformation"]["compressor"], inputs)
    return jnp.concatenate([identity, codes.exp], axis=-1)


@exact_products
def apply_deformation(
    layers: list[Params], points: Array, condition: jax.Array
) -> jax.Array:
    """The deformation network, its condition multiplied once per head.

    Layers read [points, condition], and join it again before the middle one (DeepSDF):
    before layer (n - 1) // 2 of n, h becomes [h, points, condition] / sqrt(2).

    Args:
      layers: of the deformation.
      points: [S, P, 3].
      condition: [S, C].

    Returns:
      [S, P, 3 + num_hyper].
    """
    skip = (len(layers) - 1) // 2
    dim = points.shape[-1]
    h = points
    for i, layer in enumerate(layers):
        w, b = layer["w"], layer["b"]
        if i in (0, skip):
            scale = 1.0 if i == 0 else np.sqrt(0.5).astype(np.float32)
            start = 0 if i == 0 else h.shape[-1]
            constant = scale * (condition @ w[start + dim :]) + b
            joined = scale * (points @ w[start : start + dim]) + constant[:, None]
            h = joined if i == 0 else scale * (h @ w[:start]) + joined
        else:
            h = h @ w + b
        if i < len(layers) - 1:
            h = softplus(h)
    return jnp.asarray(h)


def deform(
    params: Params,
    cfg: NPHMConfig,
    points: jax.Array,
    codes: Codes,
    anchors: jax.Array,
) -> jax.Array:
    """Backward deformation: posed points to canonical queries.

    Args:
      points: [S, P, 3] posed, NPHM units.
      codes: S heads.
      anchors: [S, n, 3] of `predict_anchors`.

    Returns:
      [S, P, 3 + num_hyper]: canonical position, then hyper coordinates.
    """
    condition = deformation_condition(params, cfg, codes, anchors)
    outputs = apply_deformation(params["deformation"]["layers"], points, condition)
    return outputs.at[..., :3].add(points)


def rest_queries(points: jax.Array, cfg: NPHMConfig) -> jax.Array:
    """Queries of points that are canonical already: hyper coordinates are zero."""
    return jnp.pad(points, ((0, 0), (0, 0), (0, cfg.num_hyper)))


def evaluate(
    params: Params,
    cfg: NPHMConfig,
    points: jax.Array,
    codes: Codes,
    *,
    method: EnsembleMethod = "blocks",
    with_color: bool = True,
) -> Evaluation:
    """The whole model: anchors, deformation, canonical field.

    Args:
      points: [S, P, 3] posed, NPHM units.
      codes: S heads.
      method: how the local ensemble is evaluated, see `field`.
      with_color: also evaluate colour, if the model has any.

    Returns:
      Evaluation; all of it differentiable with respect to points, codes and weights.
    """
    anchors = predict_anchors(params, cfg, codes.geo)
    queries = deform(params, cfg, points, codes, anchors)
    field = canonical_field(
        params, cfg, queries, codes, anchors, method=method, with_color=with_color
    )
    return Evaluation(
        sdf=field.sdf, color=field.color, queries=queries, anchors=anchors
    )


def evaluate_with_gradient(
    params: Params,
    cfg: NPHMConfig,
    points: jax.Array,
    codes: Codes,
    *,
    method: EnsembleMethod = "blocks",
    with_color: bool = True,
) -> tuple[Evaluation, jax.Array]:
    """`evaluate`, and the gradient of the signed distance at the posed points.

    Returns:
      Evaluation, and d sdf / d points [S, P, 3]; its direction is the outward normal.
    """

    def total(x):
        result = evaluate(params, cfg, x, codes, method=method, with_color=with_color)
        return jnp.sum(result.sdf), result

    gradient, result = jax.grad(total, has_aux=True)(points)
    return result, gradient
