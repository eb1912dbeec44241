"""One head at any number of points, in bounded memory and without autodiff at large.

The work is cut twice. Points pass the deformation in blocks of `POINT_ROWS`; their
edges are grouped by network and pass the ensemble in blocks of up to `EDGE_ROWS`. A
block's hidden layers stay in the cache, and every product is large enough to be quick.
Edges that weigh nothing are left out. Loops run over the blocks in use, whatever the
arrays could hold: one compiled program serves every number of points up to its size.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.core import InputError, Params, exact_products
from npga_jax.nphm.codes import Codes
from npga_jax.nphm.config import NPHMConfig
from npga_jax.nphm.ensemble import (
    edge_weights,
    nearest_anchors,
    plan_blocks,
    source_frames,
    source_types,
)
from npga_jax.nphm.field import app_network, geo_network, source_tables
from npga_jax.nphm.model import HeadModel, deform, predict_anchors, rest_queries

POINT_ROWS = 2048
"""Points in a block."""

EDGE_ROWS = 2048
"""Rows in a block of edges, where there are enough of them."""

CHUNK_SIZE = 131_072
"""Points of one launch. Many, so that few rows of the last blocks are empty; the
memory is that of the edges, about 100 bytes each with colour and gradient."""


class PointValues(NamedTuple):
    """The model at N points."""

    sdf: np.ndarray  # [N] NPHM units, positive outside
    color: np.ndarray | None  # [N, 3] in [-1, 1], not clipped; None unless asked for
    gradient: np.ndarray | None  # [N, 3] of sdf at the points as given; likewise
    num_edges: int  # edges computed


class ChunkValues(NamedTuple):
    """`PointValues` of C points, on the device."""

    sdf: jax.Array  # [C]
    color: jax.Array | None  # [C, 3]
    gradient: jax.Array | None  # [C, 3]
    num_edges: jax.Array  # []


class _Located(NamedTuple):
    """Points on their way to the ensemble."""

    queries: jax.Array  # [P, D] canonical position and hyper coordinates
    nearest: jax.Array  # [P, K] int32 anchors
    weights: jax.Array  # [P, E]


class _Values(NamedTuple):
    """What networks say, in their rows or blended."""

    sdf: jax.Array  # [B]
    color: jax.Array | None  # [B, 3]
    slope: jax.Array | None  # [B, D] d sdf / d query


def evaluate_points(
    model: HeadModel,
    points: np.ndarray,
    codes: Codes,
    *,
    posed: bool = True,
    with_color: bool = False,
    with_gradient: bool = False,
    min_weight: float = 1e-8,
    chunk_size: int = CHUNK_SIZE,
) -> PointValues:
    """Evaluates one head at many points.

    Args:
      model: sizes and weights.
      points: [N, 3] NPHM units.
      codes: one head, every field [dim].
      posed: points are posed and pass the deformation; False for canonical ones, whose
        hyper coordinates are zero.
      with_color: also colour, if the model has any.
      with_gradient: also the gradient of the signed distance at the given points.
      min_weight: edges that weigh this or less are not computed and count as zero,
        an error of less than the sum of their weights times their values; 0 computes
        every edge that has any weight.
      chunk_size: most points of one launch, rounded up to POINT_ROWS times a power of
        two. What is compiled depends on it alone, and on N where N is less.

    Returns:
      PointValues.

    Raises:
      InputError: points are not [N, 3].
    """
    points = np.asarray(points, np.float32)
    if points.ndim != 2 or points.shape[1] != 3:
        raise InputError(f"points have shape {points.shape}; expected (N, 3).")
    with_color = with_color and model.cfg.has_color
    num_points = len(points)
    size = POINT_ROWS
    while size < min(num_points, chunk_size):
        size *= 2
    sdf = np.empty(num_points, np.float32)
    color = np.empty((num_points, 3), np.float32) if with_color else None
    gradient = np.empty((num_points, 3), np.float32) if with_gradient else None
    num_edges = 0
    params, codes = jax.tree.map(jnp.asarray, (model.params, codes))
    # Equal chunks: a short last one would leave many rows of its blocks empty.
    num_chunks = -(-num_points // size)
    borders = np.linspace(0, num_points, num_chunks + 1).astype(int)
    for start, stop in itertools.pairwise(borders):
        padded = np.zeros((size, 3), np.float32)
        padded[: stop - start] = points[start:stop]
        chunk = evaluate_chunk(
            params,
            model.cfg,
            padded,
            stop - start,
            codes,
            np.float32(min_weight),
            posed=posed,
            with_color=with_color,
            with_gradient=with_gradient,
        )
        for whole, part in (
            (sdf, chunk.sdf),
            (color, chunk.color),
            (gradient, chunk.gradient),
        ):
            if whole is not None and part is not None:
                whole[start:stop] = part[: stop - start]
        num_edges += int(chunk.num_edges)
    return PointValues(sdf, color, gradient, num_edges)


@partial(jax.jit, static_argnames=("cfg", "posed", "with_color", "with_gradient"))
@exact_products
def evaluate_chunk(
    params: Params,
    cfg: NPHMConfig,
    points: jax.Array,
    count: jax.Array | int,
    codes: Codes,
    min_weight: jax.Array | float,
    *,
    posed: bool,
    with_color: bool,
    with_gradient: bool,
) -> ChunkValues:
    """What `evaluate_points` launches.

    Args:
      params: weights.
      cfg: sizes.
      points: [C, 3], C a multiple of POINT_ROWS.
      count: how many of them, from the first, are meant.
      codes: one head, every field [dim].
      min_weight: as in `evaluate_points`, and so are the flags; `with_color` only for
        models with colour.

    Returns:
      ChunkValues; zero in blocks beyond `count`.
    """
    codes = jax.tree.map(lambda x: x[None], codes)
    anchors = predict_anchors(params, cfg, codes.geo)

    def to_queries(x: jax.Array) -> jax.Array:
        if posed:
            return deform(params, cfg, x[None], codes, anchors)[0]
        return rest_queries(x[None], cfg)[0]

    num_blocks = (count + POINT_ROWS - 1) // POINT_ROWS
    capacity = points.shape[0] // POINT_ROWS

    def weigh(queries: jax.Array, nearest: jax.Array) -> jax.Array:
        return edge_weights(queries[:, None, :3] - anchors[0][nearest], cfg)

    def locate(i: jax.Array) -> _Located:
        queries = to_queries(_block(points, i))
        nearest = nearest_anchors(queries[None, :, :3], anchors, cfg.num_neighbors)[0]
        return _Located(queries, nearest, weigh(queries, nearest))

    located = _for_blocks(locate, num_blocks, capacity)
    wanted = jnp.arange(points.shape[0]) < count
    used = (located.weights > min_weight) & wanted[:, None]
    rows, places = _evaluate_edges(
        params, cfg, codes, anchors[0], located, used, with_color, with_gradient
    )

    def blend(i: jax.Array) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
        here, place = jax.tree.map(lambda x: _block(x, i), (located, places))
        picked = jax.tree.map(
            lambda v: v.at[place].get(mode="fill", fill_value=0), rows
        )
        blended = jax.tree.map(
            lambda v: jnp.einsum("pe,pe...->p...", here.weights, v), picked
        )
        gradient = None
        if with_gradient:
            # Both the networks' values and their weights change with the query.
            _, pull_weights = jax.vjp(lambda q: weigh(q, here.nearest), here.queries)
            slope = blended.slope + pull_weights(picked.sdf)[0]
            _, pull_points = jax.vjp(to_queries, _block(points, i))
            (gradient,) = pull_points(slope)
        return blended.sdf, blended.color, gradient

    sdf, color, gradient = _for_blocks(blend, num_blocks, capacity)
    return ChunkValues(sdf, color, gradient, num_edges=jnp.sum(used))


def _evaluate_edges(
    params: Params,
    cfg: NPHMConfig,
    codes: Codes,
    anchors: jax.Array,
    located: _Located,
    used: jax.Array,
    with_color: bool,
    with_gradient: bool,
) -> tuple[_Values, jax.Array]:
    """The local networks at all edges in use, grouped by network.

    Args:
      codes: S = 1 head.
      anchors: [n, 3].
      located: C points.
      used: [C, E] bool.

    Returns:
      Values in the order of evaluation; the row of each edge [C, E], beyond the last
      for edges that are not in use.
    """
    identity = params["identity"]
    sources = jnp.pad(
        located.nearest, ((0, 0), (0, 1)), constant_values=cfg.num_anchors
    )
    sources, num_edges = sources.reshape(-1), sources.size
    types = jnp.asarray(source_types(cfg))[sources]
    types = jnp.where(used.reshape(-1), types, cfg.num_types)
    blocks = plan_blocks(
        types, cfg.num_types, _edge_rows(num_edges, cfg), padding=num_edges
    )
    tables = source_tables(params, cfg, codes)
    origins, mirrors = source_frames(anchors, cfg, cfg.query_dim)

    def evaluate(i: jax.Array) -> _Values:
        edge = jnp.minimum(blocks.edges[i], num_edges - 1)
        layers = {"geo": identity["geo"], "app": identity["app"] if with_color else []}
        layers = jax.tree.map(lambda w: w[blocks.types[i]], layers)
        source = sources[edge]
        query = located.queries[edge // cfg.num_edges]

        def geometry(query: jax.Array) -> tuple[jax.Array, jax.Array]:
            offsets = (query - origins[source]) * mirrors[source]
            return geo_network(layers["geo"], tables.geo[0][source], offsets)

        slope = color = None
        if with_gradient:
            sdf, pullback, feature = jax.vjp(geometry, query, has_aux=True)
            (slope,) = pullback(jnp.ones_like(sdf))
        else:
            sdf, feature = geometry(query)
        if with_color:
            assert tables.app is not None  # The model has colours.
            first = tables.app[0][source]
            color = app_network(layers["app"], identity["bottleneck"], first, feature)
        return _Values(sdf=sdf, color=color, slope=slope)

    rows = _for_blocks(evaluate, blocks.count, blocks.types.size)
    num_rows = blocks.edges.size
    place = jnp.full(num_edges, num_rows, jnp.int32)
    place = place.at[blocks.edges.reshape(-1)].set(
        jnp.arange(num_rows, dtype=jnp.int32), mode="drop"
    )
    return rows, place.reshape(-1, cfg.num_edges)


def _edge_rows(num_edges: int, cfg: NPHMConfig) -> int:
    """Rows of a block: a power of two that leaves few of them empty.

    On average half a block per network is empty: 1 / 16 of a full chunk's edges.
    """
    wanted = num_edges // (8 * cfg.num_types)
    return min(EDGE_ROWS, max(128, 1 << (wanted.bit_length() - 1)))


def _block(points: jax.Array, i: jax.Array) -> jax.Array:
    """The i-th block: [C, ...] -> [POINT_ROWS, ...]."""
    return jax.lax.dynamic_slice_in_dim(points, i * POINT_ROWS, POINT_ROWS)


def _for_blocks(
    body: Callable[[jax.Array], Any], count: jax.Array | int, capacity: int
) -> Any:
    """Joins the rows that `body` returns for the first `count` blocks.

    The rows of the other blocks, up to `capacity`, are zero.
    """
    shapes = jax.eval_shape(body, jnp.int32(0))
    empty = jax.tree.map(
        lambda s: jnp.zeros((capacity * s.shape[0], *s.shape[1:]), s.dtype), shapes
    )

    def step(i: jax.Array, joined: Any) -> Any:
        return jax.tree.map(
            lambda rows, new: jax.lax.dynamic_update_slice_in_dim(
                rows, new, i * new.shape[0], axis=0
            ),
            joined,
            body(i),
        )

    return jax.lax.fori_loop(0, count, step, empty)
