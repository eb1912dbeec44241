"""Smoothness over neighbouring Gaussians: of features, and of how they move.

L(a) = mean_i | a_i - sum_j w_ij a_j |^2 over the K nearest neighbours in canonical
space (NPGA's Laplacian terms). Hyper coordinates take part in the distance, so that
lips that touch are not tied together.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import KDTree

from npga_jax.core import Array, Gaussians, Graph

_APART = 0.1
"""Metres between skin, skull and jaw: what they carry has no neighbours elsewhere."""


def empty_graph(count: int, neighbours: int = 1) -> Graph:
    """A graph without edges, of the shapes that `build_graph` gives."""
    return Graph(
        jnp.zeros((count, neighbours), jnp.int32), jnp.zeros((count, neighbours))
    )


def build_graph(
    gaussians: Gaussians,
    alive: Array,
    *,
    neighbours: int,
    hyper_columns: int = 0,
    hyper_scale: float = 1.0,
) -> Graph:
    """Finds neighbours on the host.

    Args:
      neighbours: K.
      hyper_columns: how many of the first features are hyper coordinates.
      hyper_scale: metres that one unit of them counts as.
    """
    alive = np.asarray(alive)
    space = np.concatenate(
        [
            np.asarray(gaussians.means),
            hyper_scale * np.asarray(gaussians.features)[:, :hyper_columns],
            _APART * np.asarray(gaussians.bindings),
        ],
        axis=1,
    )
    count = len(alive)
    rows = np.flatnonzero(alive)
    ids = np.repeat(np.arange(count)[:, None], neighbours, axis=1)
    weights = np.zeros((count, neighbours), np.float32)
    found = min(neighbours, len(rows) - 1)
    if found > 0:
        distances, nearest = KDTree(space[rows]).query(space[rows], k=found + 1)
        distances, nearest = distances[:, 1:], np.asarray(nearest)[:, 1:]
        spread = np.maximum(distances.mean(axis=1, keepdims=True), 1e-9)
        near = np.exp(-0.5 * (distances / spread) ** 2)
        ids[rows, :found] = rows[nearest]
        weights[rows, :found] = near / near.sum(axis=1, keepdims=True)
    return Graph(jnp.asarray(ids, jnp.int32), jnp.asarray(weights, jnp.float32))


def laplacian_energy(
    values: jax.Array,  # [N, D]
    graph: Graph,
    start: jax.Array,  # []
    *,
    rows: int,
) -> jax.Array:
    """Mean squared difference from the neighbours' average, over some Gaussians: [].

    Args:
      start: first of the Gaussians that are looked at. A block of them at a time keeps
        the term cheap; which one changes from step to step.
      rows: how many; at most N.
    """
    own, ids, weights = (
        jax.lax.dynamic_slice_in_dim(x, start, rows)
        for x in (values, graph.ids, graph.weights)
    )
    average = jnp.einsum("rk,rkd->rd", weights, values[ids])
    has_any = jnp.sum(weights, axis=1) > 0
    energy = jnp.where(has_any, jnp.sum((own - average) ** 2, axis=1), 0.0)
    return jnp.sum(energy) / jnp.maximum(jnp.sum(has_any), 1)
