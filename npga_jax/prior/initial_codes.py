"""First codes of an auto-decoder: principal components of the registration.

MonoNPHM starts all codes at zero and lets training sort the heads, which takes days.
Registered scans already say how heads differ: the global part of an identity code
starts as principal components of the whole head, each local part as those of the
surface around its anchor (mirrored alike for both members of a pair), the expression
code as those of the displacements. Training goes on from there.
"""

import numpy as np
from scipy.spatial import KDTree

from npga_jax.nphm import NPHMConfig
from npga_jax.prior.anchors import mirror_vertices
from npga_jax.prior.scans import RegisteredScans

CODE_STD = 0.2
"""Standard deviation of each component of a code over the training set."""

_STRIDE = 8
_MOST_ROWS = 1024
_PATCH = 96
_CHUNK = 128


def _components(samples: np.ndarray, dim: int, *, centred: bool = True) -> np.ndarray:
    """Whitened principal components of rows [N, D]: [N, dim], deviation CODE_STD.

    The components are those of at most `_MOST_ROWS` rows. Components beyond the rank
    are zero.
    """
    if centred:
        samples = samples - samples.mean(axis=0)
    # Drawn, since scans come in an order: a stride could meet neutral ones alone.
    rows = np.random.default_rng(0).permutation(len(samples))[:_MOST_ROWS]
    some = samples[rows].astype(np.float64)
    values, vectors = np.linalg.eigh(some @ some.T)
    values, vectors = values[::-1][:dim], vectors[:, ::-1][:, :dim]
    alive = values > 1e-9 * max(values[0], 1e-30)
    # Rows times axes, axes being some.T @ vectors / singular value; divided by the
    # deviation, which is that value over sqrt(rows).
    factor = np.where(alive, np.sqrt(len(some)) / np.where(alive, values, 1.0), 0.0)
    axes = some.T @ (vectors * factor)
    scores = samples @ axes.astype(np.float32) * CODE_STD
    codes = np.zeros((len(samples), dim), np.float32)
    codes[:, : scores.shape[1]] = scores
    return codes


def initial_codes(
    scans: RegisteredScans, anchor_vertices: np.ndarray, cfg: NPHMConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Codes of all people and scans of a training set.

    Args:
      scans: the training set.
      anchor_vertices: [n] vertex indices.
      cfg: sizes.

    Returns:
      Identity codes [num_identities, lat_dim_geo] and expression codes
      [num_scans, lat_dim_exp], float32; neutral scans have expression code zero.
    """
    people = np.arange(scans.num_identities)
    neutral = np.concatenate(
        [
            scans.neutral_fn(people[i : i + _CHUNK])
            for i in range(0, len(people), _CHUNK)
        ]
    )
    sparse = np.arange(0, neutral.shape[1], _STRIDE)
    glob = _components(neutral[:, sparse].reshape(len(people), -1), cfg.lat_dim_glob)
    local = _local_codes(neutral, scans.mean, anchor_vertices, cfg)
    geo = np.concatenate([glob, local.reshape(len(people), -1)], axis=1)

    moved = np.zeros((scans.num_scans, len(sparse) * 3), np.float32)
    for start in range(0, scans.num_scans, _CHUNK):
        index = np.arange(start, min(start + _CHUNK, scans.num_scans))
        posed = scans.posed_fn(index)[:, sparse]
        rest = neutral[scans.identity_of[index]][:, sparse]
        moved[index] = (posed - rest).reshape(len(index), -1)
    exp = _components(moved, cfg.lat_dim_exp, centred=False)
    return geo.astype(np.float32), exp


def _local_codes(
    neutral: np.ndarray, mean: np.ndarray, anchor_vertices: np.ndarray, cfg: NPHMConfig
) -> np.ndarray:
    """Components of the surface around each anchor, seen from it: [I, sources, loc]."""
    count, dim = len(neutral), cfg.lat_dim_loc_geo
    mirror = mirror_vertices(mean)
    sparse = np.arange(0, len(mean), 2)
    tree = KDTree(mean[sparse])
    codes = np.zeros((count, cfg.num_sources, dim), np.float32)

    def patch(vertices: np.ndarray, anchor: int) -> np.ndarray:
        return neutral[:, vertices] - neutral[:, anchor][:, None]

    for pair in range(cfg.num_symm_pairs):
        even, odd = anchor_vertices[2 * pair], anchor_vertices[2 * pair + 1]
        vertices = sparse[tree.query(mean[even], _PATCH)[1]]
        flipped = patch(mirror[vertices], odd) * np.array([-1, 1, 1], np.float32)
        both = np.concatenate([patch(vertices, even), flipped]).reshape(2 * count, -1)
        scores = _components(both, dim)
        codes[:, 2 * pair], codes[:, 2 * pair + 1] = scores[:count], scores[count:]
    for source in range(2 * cfg.num_symm_pairs, cfg.num_anchors):
        anchor = anchor_vertices[source]
        vertices = sparse[tree.query(mean[anchor], _PATCH)[1]]
        codes[:, source] = _components(patch(vertices, anchor).reshape(count, -1), dim)
    return codes
