"""Where and with which codes F is compared with the head model."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.avatar import NECK_HEIGHTS
from npga_jax.core import edge_strain, most_neutral_row
from npga_jax.distillation.person import Backward, Person, make_backward, move_back
from npga_jax.nphm import METRES_PER_UNIT, TRACKING_BOX, head_mesh
from npga_jax.tracking import PriorWeights, shut_eyes

_NEAR = 0.01 * METRES_PER_UNIT
"""Metres: spread around the surface, NPHM's `sigma_near`."""
_STRAINED = 0.01 * METRES_PER_UNIT
"""Metres: spread around what the expressions stretch: lips, lids, folds."""
_FAR = 1.25 * METRES_PER_UNIT
"""Metres: half the box in which MonoNPHM's training pulls its field to zero."""
_CODE_NOISE = 0.5
"""In deviations of the tracked codes: an unseen sequence leaves what those span."""
_MOST_MIXED = 6
_SHUT_SHARE = 0.3
"""Of codes whose eyes are shut further than those that were tracked."""
_MOST_SHUT = 1.25
"""Of what shuts the eyes, at most."""
_CODES_FOR_STRAIN = 128
_STRAIN_QUANTILE = 0.98
_SHORT_EDGE = 1e-4  # metres


class Domain(NamedTuple):
    """What is sampled from."""

    surface: jax.Array  # [V, 3] canonical, metres
    normals: jax.Array  # [V, 3]
    strain: jax.Array  # [V] cumulative share of how much each point is stretched
    codes: jax.Array  # [T, E] tracked
    neutral: jax.Array  # [E] the most neutral of them
    code_std: jax.Array  # [E]
    shut: jax.Array  # [M, E] what shuts both eyes or one, see `tracking.shut_eyes`


class Sample(NamedTuple):
    """Points and codes of one step; every point meets every code."""

    points: jax.Array  # [P, 3] canonical, metres: near the surface and in the box,
    # in an order that says nothing
    far: jax.Array  # [P // 8, 3] where nothing moves
    expr: jax.Array  # [C, E]
    offsets: jax.Array  # [C, P - P // 2, 3] normal, for what begins in posed space


def make_domain(
    person: Person, codes: np.ndarray, *, resolution: int = 128
) -> tuple[Domain, Backward]:
    """Meshes the canonical head and measures what is stretched in it.

    Args:
      codes: [T, E] tracked expression codes to learn from.
      resolution: of the mesh, grid points along an axis of MonoNPHM's box.
    """
    mesh = head_mesh(
        person.model,
        person.codes(),
        posed=False,
        resolution=resolution,
        with_color=False,
    )
    surface = mesh.vertices * METRES_PER_UNIT
    kept = surface[:, 1] > NECK_HEIGHTS[1]
    renumbered = np.cumsum(kept) - 1
    edges = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    edges = renumbered[edges[kept[edges].all(axis=1)]]
    surface, normals = surface[kept], mesh.normals[kept]
    backward = make_backward(person)
    some = codes[:: max(1, len(codes) // _CODES_FOR_STRAIN)]

    @jax.jit
    def canonical_of(codes):
        # One code after the other: all at once would take half a gigabyte.
        return jax.lax.map(
            lambda code: move_back(backward, surface[None], code[None])[0][0], codes
        )

    displaced = np.asarray(canonical_of(jnp.asarray(some))) - surface
    strain = vertex_strain(surface, edges, displaced) + 1e-6
    neutral = jnp.asarray(codes[most_neutral_row(codes)])
    domain = Domain(
        surface=jnp.asarray(surface),
        normals=jnp.asarray(normals),
        strain=jnp.asarray(np.cumsum(strain) / np.sum(strain), jnp.float32),
        codes=jnp.asarray(codes),
        neutral=neutral,
        code_std=jnp.std(jnp.asarray(codes), axis=0),
        shut=_shut(person, neutral),
    )
    return domain, backward


def _shut(person: Person, neutral: jax.Array) -> jax.Array:
    """What shuts the eyes [M, E]; nothing where the head model cannot say."""
    prior = PriorWeights(exp=1.0 / person.exp_std**2)
    params = jax.tree.map(jnp.asarray, person.model.params)
    model = person.model._replace(params=params)
    shut = shut_eyes(model, jnp.asarray(person.geo), neutral, prior)
    return jnp.where(jnp.isfinite(shut), shut, 0.0)


def vertex_strain(
    points: np.ndarray, edges: np.ndarray, displacements: np.ndarray
) -> np.ndarray:
    """How much the strongest expressions stretch the surface around each point: [V].

    What moves as a whole is easy to learn and needs few samples; what is folded or
    unfolded within millimetres, such as lids, needs many and covers little.

    Args:
      points: [V, 3].
      edges: [M, 2] indices of the ends of the mesh's edges.
      displacements: [T, V, 3] by T expressions.
    """
    count = np.maximum(np.bincount(edges.ravel(), minlength=len(points)), 1)
    per_code = np.empty(displacements.shape[:2], np.float32)
    for row, moved in zip(per_code, displacements, strict=True):
        strain = edge_strain(points, edges, moved, short=_SHORT_EDGE)
        total = sum(
            np.bincount(end, strain**2, minlength=len(points)) for end in edges.T
        )
        row[:] = np.sqrt(total / count)
    return np.quantile(per_code, _STRAIN_QUANTILE, axis=0)


def draw(key: jax.Array, domain: Domain, num_points: int, num_codes: int) -> Sample:
    """One step's sample.

    Three eighths of the points lie near the surface, half near what is stretched, the
    rest in MonoNPHM's box. A code is the neutral one and up to six tracked expressions
    on top, each from none to all of it, with some noise: a sequence that is not seen
    combines what those seen show one at a time. Few frames show shut eyes, and lids
    fold more than anything else: three codes of ten shut theirs somewhat on top.
    """
    keys = iter(jax.random.split(key, 20))

    def around(index, spread):
        offsets = spread * jax.random.normal(next(keys), (index.shape[0], 3))
        return domain.surface[index] + offsets

    num_strained, num_box = num_points // 2, num_points // 8
    last = domain.surface.shape[0]
    index = jax.random.randint(
        next(keys), (num_points - num_strained - num_box,), 0, last
    )
    near = around(index, _NEAR)
    height = jax.random.uniform(next(keys), (num_strained,))
    strained = around(jnp.searchsorted(domain.strain, height), _STRAINED)
    low, high = METRES_PER_UNIT * jnp.array(TRACKING_BOX)
    low = low.at[1].set(NECK_HEIGHTS[1])
    box = low + (high - low) * jax.random.uniform(next(keys), (num_box, 3))

    far = jax.random.uniform(
        next(keys), (num_points // 8, 3), minval=-_FAR, maxval=_FAR
    )
    # Those that fell into the box move out of it, past the back of the head.
    inside = jnp.all((far > low) & (far < high), axis=-1, keepdims=True)
    far = jnp.where(inside, far.at[:, 2].set(-_FAR), far)

    num_tracked, width = domain.codes.shape
    shape = (num_codes, _MOST_MIXED)
    mixed = domain.codes[jax.random.randint(next(keys), shape, 0, num_tracked)]
    shares = jax.random.uniform(next(keys), shape)
    count = jax.random.randint(next(keys), (num_codes, 1), 1, _MOST_MIXED + 1)
    shares = jnp.where(jnp.arange(_MOST_MIXED) < count, shares, 0.0)
    expr = domain.neutral + jnp.einsum("ck,cke->ce", shares, mixed - domain.neutral)
    noise = _CODE_NOISE * domain.code_std
    expr = expr + noise * jax.random.normal(next(keys), (num_codes, width))
    which = jax.random.randint(next(keys), (num_codes,), 0, len(domain.shut))
    how_far = jax.random.uniform(next(keys), (num_codes,), maxval=_MOST_SHUT)
    is_shut = jax.random.uniform(next(keys), (num_codes,)) < _SHUT_SHARE
    expr = expr + jnp.where(is_shut, how_far, 0.0)[:, None] * domain.shut[which]
    points = jax.random.permutation(next(keys), jnp.concatenate([near, strained, box]))
    offsets = jax.random.normal(
        next(keys), (num_codes, num_points - num_points // 2, 3)
    )
    return Sample(points, far, expr, offsets)
