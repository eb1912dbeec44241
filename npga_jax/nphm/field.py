"""The canonical field of MonoNPHM: signed distance and colour of the neutral head.

Two ways to evaluate the local ensemble, with equal results:
`blocks` computes only the edges of a point, grouped by network, and is differentiable
any number of times; `dense` computes every network for every point, the plain
definition. `streaming` holds a third, for large numbers of points without gradients of
the weights.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from npga_jax.core import Array, Params, exact_products
from npga_jax.nphm.codes import Codes, split_code
from npga_jax.nphm.config import NPHMConfig
from npga_jax.nphm.ensemble import find_edges, plan_blocks, source_frames, source_types
from npga_jax.nphm.networks import apply_layers, linear, softplus

BLOCK_SIZE = 128
"""Rows of a block. Small: a network with few edges leaves few rows empty."""

EnsembleMethod = Literal["blocks", "dense"]
"""How the ensemble of local networks is evaluated."""


class Field(NamedTuple):
    """Values of the canonical field."""

    sdf: jax.Array  # [S, P] NPHM units, positive outside
    color: jax.Array | None  # [S, P, 3] in [-1, 1], not clipped; None without colour


class SourceTables(NamedTuple):
    """The part of each first layer that depends on codes alone, one row per source."""

    geo: jax.Array  # [S, num_sources, hidden_dim_geo]
    app: jax.Array | None  # [S, num_sources, hidden_dim_app]


def code_inputs(code: Array, cfg: NPHMConfig) -> jax.Array:
    """What each source reads: [S, lat_dim] -> [S, num_sources, glob + loc]."""
    glob, local = split_code(code, cfg)
    glob = jnp.broadcast_to(glob[:, None], (*local.shape[:2], glob.shape[-1]))
    return jnp.concatenate([glob, local], axis=-1)


@exact_products
def source_tables(params: Params, cfg: NPHMConfig, codes: Codes) -> SourceTables:
    """Evaluates the code part of the first layers once per source."""

    def table(layer: Params, code: Array) -> jax.Array:
        inputs = code_inputs(code, cfg)
        types = source_types(cfg)
        weights = layer["w"][:, : inputs.shape[-1]]
        return jnp.einsum("ski,kio->sko", inputs, weights[types]) + layer["b"][types]

    identity = params["identity"]
    return SourceTables(
        geo=table(identity["geo"][0], codes.geo),
        app=table(identity["app"][0], codes.app) if cfg.has_color else None,
    )


@exact_products
def geo_network(
    layers: list[Params], first: jax.Array, offsets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One local geometry network.

    Args:
      layers: its layers, {"w": [in, out], "b": [out]}.
      first: [B, hidden] code part of the first layer.
      offsets: [B, D] queries seen from their source.

    Returns:
      Signed distances [B], and the last hidden layer before its activation
      [B, hidden], which the colour reads.
    """
    weights = layers[0]["w"]
    h = first + offsets @ weights[weights.shape[0] - offsets.shape[-1] :]
    for layer in layers[1:-1]:
        h = linear(layer, softplus(h))
    return linear(layers[-1], softplus(h))[:, 0], h


@exact_products
def app_network(
    layers: list[Params],
    bottleneck: list[Params],
    first: jax.Array,
    geo_feature: jax.Array,
) -> jax.Array:
    """One local colour network; position reaches it through the geometry's feature.

    Args:
      first: [B, hidden] code part of the first layer.
      geo_feature: [B, hidden_dim_geo], see `geo_network`.

    Returns:
      [B, 3] in [-1, 1], not clipped.
    """
    message = apply_layers(bottleneck, geo_feature, jax.nn.relu)
    weights = layers[0]["w"]
    h = first + message @ weights[weights.shape[0] - message.shape[-1] :]
    return apply_layers(layers[1:], jax.nn.relu(h), jax.nn.relu)


@exact_products
def canonical_field(
    params: Params,
    cfg: NPHMConfig,
    queries: jax.Array,
    codes: Codes,
    anchors: jax.Array,
    *,
    method: EnsembleMethod = "blocks",
    with_color: bool = True,
) -> Field:
    """Signed distance and colour at canonical points.

    Args:
      params: see `model.init_params`.
      cfg: sizes.
      queries: [S, P, D] canonical position (NPHM units) and hyper coordinates.
      codes: S heads, each field [S, ...].
      anchors: [S, n, 3] canonical.
      method: how the ensemble is evaluated.
      with_color: also evaluate colour, if the model has any.

    Returns:
      Field.
    """
    with_color = with_color and cfg.has_color
    evaluate = {"blocks": _evaluate_blocks, "dense": _evaluate_dense}[method]
    return evaluate(params, cfg, queries, codes, anchors, with_color)


def _evaluate_blocks(
    params: Params,
    cfg: NPHMConfig,
    queries: jax.Array,
    codes: Codes,
    anchors: jax.Array,
    with_color: bool,
) -> Field:
    """Only the edges, in blocks of one network each."""
    identity = params["identity"]
    edges = find_edges(queries, anchors, cfg)
    shape, dim = edges.sources.shape, queries.shape[-1]
    num_edges = edges.sources.size
    types = jnp.asarray(source_types(cfg))[edges.sources].reshape(-1)
    blocks = plan_blocks(types, cfg.num_types, BLOCK_SIZE, padding=num_edges)
    tables = source_tables(params, cfg, codes)
    scan = jnp.arange(shape[0])[:, None, None]
    source_row = (scan * cfg.num_sources + edges.sources).reshape(-1)

    def rows(per_edge: jax.Array) -> jax.Array:
        return per_edge.at[blocks.edges].get(mode="fill", fill_value=0)

    def weights_of(layers: list[Params]) -> list[Params]:
        return jax.tree.map(lambda w: w[blocks.types], layers)

    def to_edges(per_row: jax.Array) -> jax.Array:
        empty = jnp.zeros((num_edges, *per_row.shape[2:]), per_row.dtype)
        flat = per_row.reshape(-1, *per_row.shape[2:])
        return (
            empty.at[blocks.edges.reshape(-1)]
            .set(flat, mode="drop")
            .reshape(*shape, *per_row.shape[2:])
        )

    block_rows = rows(source_row)
    values, feature = jax.vmap(geo_network)(
        weights_of(identity["geo"]),
        tables.geo.reshape(-1, cfg.hidden_dim_geo)[block_rows],
        rows(edges.offsets.reshape(num_edges, dim)),
    )
    sdf = jnp.sum(edges.weights * to_edges(values), axis=-1)
    if not with_color or tables.app is None:
        return Field(sdf=sdf, color=None)
    colors = jax.vmap(app_network, in_axes=(0, None, 0, 0))(
        weights_of(identity["app"]),
        identity["bottleneck"],
        tables.app.reshape(-1, cfg.hidden_dim_app)[block_rows],
        feature,
    )
    color = jnp.sum(edges.weights[..., None] * to_edges(colors), axis=-2)
    return Field(sdf=sdf, color=color)


def _evaluate_dense(
    params: Params,
    cfg: NPHMConfig,
    queries: jax.Array,
    codes: Codes,
    anchors: jax.Array,
    with_color: bool,
) -> Field:
    """Every source at every point, then the edges' values taken out."""
    identity = params["identity"]
    edges = find_edges(queries, anchors, cfg)
    tables = source_tables(params, cfg, codes)
    types = source_types(cfg)
    origins, mirrors = source_frames(anchors, cfg, queries.shape[-1])
    offsets = (queries[:, None] - origins[:, :, None]) * mirrors[:, None]

    def evaluate(layers, bottleneck, app_layers, geo_row, app_row, offset):
        first = jnp.broadcast_to(geo_row, (offset.shape[0], geo_row.shape[0]))
        value, feature = geo_network(layers, first, offset)
        if not with_color:
            return value, jnp.zeros((offset.shape[0], 3))
        first = jnp.broadcast_to(app_row, (offset.shape[0], app_row.shape[0]))
        return value, app_network(app_layers, bottleneck, first, feature)

    app_layers = identity["app"] if with_color else []
    bottleneck = identity["bottleneck"] if with_color else []
    app_table = tables.app if with_color else jnp.zeros((*tables.geo.shape[:2], 0))
    over_sources = jax.vmap(evaluate, in_axes=(0, None, 0, 0, 0, 0))
    over_scans = jax.vmap(over_sources, in_axes=(None, None, None, 0, 0, 0))
    values, colors = over_scans(
        jax.tree.map(lambda w: w[types], identity["geo"]),
        bottleneck,
        jax.tree.map(lambda w: w[types], app_layers),
        tables.geo,
        app_table,
        offsets,
    )
    picked = jnp.take_along_axis(values.swapaxes(1, 2), edges.sources, axis=-1)
    sdf = jnp.sum(edges.weights * picked, axis=-1)
    if not with_color:
        return Field(sdf=sdf, color=None)
    picked = jnp.take_along_axis(
        colors.swapaxes(1, 2), edges.sources[..., None], axis=-2
    )
    return Field(sdf=sdf, color=jnp.sum(edges.weights[..., None] * picked, axis=-2))
