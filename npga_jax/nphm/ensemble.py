"""The mirrored local ensemble: which small network sees which point, and blending.

Letters: S heads, P points each, E edges of a point (its nearest anchors and the extra,
non-local network), T distinct networks, D the width of a canonical query.
A *source* is an anchor or the extra network (the last one): a place in space with
local codes; the members of a mirror pair are two sources of one network.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.core import safe_norm
from npga_jax.nphm.config import BLEND_NEIGHBORS, EXTRA_DISTANCE, NPHMConfig

_TILE = 256
"""Points that are compared with the anchors side by side."""


class Edges(NamedTuple):
    """Which sources a point is evaluated by, seen from each of them."""

    sources: jax.Array  # [S, P, E] int32, nearest first; the extra one is the last
    offsets: jax.Array  # [S, P, E, D] query minus anchor, x mirrored where odd
    weights: jax.Array  # [S, P, E] blending weights, summing to 1


def source_types(cfg: NPHMConfig) -> np.ndarray:
    """Index of the network of each source: [num_sources] int32."""
    source = np.arange(cfg.num_sources)
    paired = source < 2 * cfg.num_symm_pairs
    return np.where(paired, source // 2, source - cfg.num_symm_pairs).astype(np.int32)


def source_mirrors(cfg: NPHMConfig) -> np.ndarray:
    """Sign of x for each source: -1 for the odd member of a pair. [num_sources]."""
    source = np.arange(cfg.num_sources)
    odd = (source < 2 * cfg.num_symm_pairs) & (source % 2 == 1)
    return np.where(odd, -1.0, 1.0).astype(np.float32)


def source_frames(
    anchors: jax.Array, cfg: NPHMConfig, dim: int
) -> tuple[jax.Array, jax.Array]:
    """From where each source sees a query: (query - origin) * mirror.

    The extra source stands at the origin, and hyper coordinates have no anchor.

    Args:
      anchors: [..., n, 3].
      dim: D, width of a query.

    Returns:
      Origins [..., num_sources, D]; mirrors [num_sources, D], -1 for x where odd.
    """
    widths = [(0, 0)] * (anchors.ndim - 2) + [(0, 1), (0, dim - 3)]
    mirrors = jnp.ones((cfg.num_sources, dim)).at[:, 0].set(source_mirrors(cfg))
    return jnp.pad(anchors, widths), mirrors


def nearest_anchors(positions: jax.Array, anchors: jax.Array, k: int) -> jax.Array:
    """The k nearest anchors, nearest first.

    Args:
      positions: [S, P, 3].
      anchors: [S, n, 3].

    Returns:
      [S, P, k] int32; no gradient.
    """
    # k times the minimum: on a CPU three times faster than `lax.top_k`, if points lie
    # side by side in tiles that stay in the cache: [S, tiles, n, _TILE].
    num_scans, num_points, _ = positions.shape
    positions, anchors = jax.lax.stop_gradient((positions, anchors))
    positions = jnp.pad(positions, ((0, 0), (0, -num_points % _TILE), (0, 0)))
    x = positions.reshape(num_scans, -1, 1, _TILE, 3)
    a = anchors[:, None, :, None]
    squared = jnp.asarray(sum((x[..., i] - a[..., i]) ** 2 for i in range(3)))
    num_anchors = anchors.shape[1]
    anchor = jnp.arange(num_anchors, dtype=jnp.int32)[:, None]

    def take_next(last, _):
        # The least of those that come later in the order (distance, anchor).
        distance, chosen = last
        later = (squared > distance) | ((squared == distance) & (anchor > chosen))
        distance = jnp.min(jnp.where(later, squared, jnp.inf), axis=2, keepdims=True)
        found = jnp.where(later & (squared == distance), anchor, num_anchors)
        chosen = jnp.min(found, axis=2, keepdims=True)
        return (distance, chosen), chosen[:, :, 0]

    first = jnp.full_like(squared[:, :, :1], -1.0)
    _, nearest = jax.lax.scan(
        take_next, (first, jnp.full_like(first, -1, jnp.int32)), length=k
    )
    nearest = jnp.moveaxis(nearest, 0, -1).reshape(num_scans, -1, k)
    return nearest[:, :num_points]


def blend_weights(distances: jax.Array, cfg: NPHMConfig) -> jax.Array:
    """Weights of the sources from their distances (MonoNPHM; nphm section 3.5).

    Args:
      distances: [..., E] to the nearest anchors, ascending, then to the extra source.

    Returns:
      [..., E]. The Gaussian's width is the distance of the 8th nearest anchor over
      `blend_std`; gradients flow through it too.
    """
    width = jnp.max(distances[..., :BLEND_NEIGHBORS], axis=-1, keepdims=True)
    exponent = distances / width * cfg.blend_std
    weights = jnp.exp(-0.5 * exponent**2)
    return weights / (jnp.sum(weights, axis=-1, keepdims=True) + 1e-8)


def edge_weights(offsets: jax.Array, cfg: NPHMConfig) -> jax.Array:
    """Blending weights of a point's edges.

    Args:
      offsets: [..., K, 3] of the point from its nearest anchors, nearest first.

    Returns:
      [..., E]; the extra source is the last.
    """
    distances = safe_norm(offsets)
    extra = jnp.full((*distances.shape[:-1], 1), EXTRA_DISTANCE)
    return blend_weights(jnp.concatenate([distances, extra], axis=-1), cfg)


def find_edges(queries: jax.Array, anchors: jax.Array, cfg: NPHMConfig) -> Edges:
    """Connects points to their nearest anchors and to the extra source.

    Args:
      queries: [S, P, D] canonical position and hyper coordinates.
      anchors: [S, n, 3] canonical.

    Returns:
      Edges, differentiable with respect to both.
    """
    num_scans, num_points, dim = queries.shape
    nearest = nearest_anchors(queries[..., :3], anchors, cfg.num_neighbors)
    extra = jnp.full((num_scans, num_points, 1), cfg.num_anchors, nearest.dtype)
    sources = jnp.concatenate([nearest, extra], axis=-1)
    origins, mirrors = source_frames(anchors, cfg, dim)
    offsets = queries[:, :, None, :] - jax.vmap(lambda o, s: o[s])(origins, sources)
    return Edges(
        sources=sources,
        offsets=offsets * mirrors[sources],
        weights=edge_weights(offsets[..., : cfg.num_neighbors, :3], cfg),
    )


class Blocks(NamedTuple):
    """Edges grouped so that each block of rows is evaluated by one network."""

    types: jax.Array  # [M] int32, the network of each block
    edges: jax.Array  # [M, B] int32, index of the edge in each row; `padding` if none
    count: jax.Array  # [] int32, blocks in use


def max_blocks(num_edges: int, num_types: int, block_size: int) -> int:
    """Blocks that always suffice: one per network may be partly empty."""
    return num_edges // block_size + min(num_types, num_edges)


def plan_blocks(
    types: jax.Array, num_types: int, block_size: int, padding: int
) -> Blocks:
    """Sorts edges by network and cuts them into blocks.

    Args:
      types: [E] int32 network of each edge; `num_types` for edges to leave out.
      num_types: number of networks.
      block_size: rows of a block.
      padding: index that fills rows without an edge.

    Returns:
      Blocks; every edge with a network occurs once.
    """
    num_edges = types.shape[0]
    num_blocks = max_blocks(num_edges, num_types, block_size)
    bits = int(num_edges).bit_length()
    if (num_types + 1) << bits > 2**32:
        raise ValueError(f"{num_edges} edges are too many for one plan; use chunks")
    keys = (types.astype(jnp.uint32) << bits) | jnp.arange(num_edges, dtype=jnp.uint32)
    keys = jnp.sort(keys)
    borders = jnp.searchsorted(
        keys, jnp.arange(num_types + 1, dtype=jnp.uint32) << bits
    ).astype(jnp.int32)
    counts = borders[1:] - borders[:-1]
    blocks_of_type = (counts + block_size - 1) // block_size
    last = jnp.cumsum(blocks_of_type)
    block = jnp.arange(num_blocks, dtype=jnp.int32)
    block_type = jnp.searchsorted(last, block, side="right").astype(jnp.int32)
    block_type = jnp.minimum(block_type, num_types - 1)
    first = block - (last - blocks_of_type)[block_type]
    row = first[:, None] * block_size + jnp.arange(block_size, dtype=jnp.int32)
    used = (row < counts[block_type][:, None]) & (block < last[-1])[:, None]
    position = jnp.clip(borders[:-1][block_type][:, None] + row, 0, num_edges - 1)
    edge = (keys[position] & jnp.uint32((1 << bits) - 1)).astype(jnp.int32)
    return Blocks(
        types=block_type,
        edges=jnp.where(used, edge, padding),
        count=last[-1].astype(jnp.int32),
    )
