"""Where and with which codes F is compared with the head model."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.distillation.person import Backward, Person, make_backward, move_back
from npga_jax.forward import NECK_HEIGHTS
from npga_jax.nphm.config import METRES_PER_UNIT
from npga_jax.nphm.meshing import TRACKING_BOX, head_mesh

_NEAR = 0.01 * METRES_PER_UNIT
"""Metres: spread around the surface, NPHM's `sigma_near`."""
_MOVING = 0.02 * METRES_PER_UNIT
"""Metres: spread around the parts that move, which are mouth, jaw and eyes."""
_FAR = 1.25 * METRES_PER_UNIT
"""Metres: half the box in which MonoNPHM's training pulls its field to zero."""
_CODE_NOISE = 0.1
_MIX_SHARE = 0.5
_CODES_FOR_MOTION = 32


class Domain(NamedTuple):
    """What is sampled from."""

    surface: jax.Array  # [V, 3] canonical, metres
    normals: jax.Array  # [V, 3]
    motion: jax.Array  # [V] cumulative share of how much each point moves
    codes: jax.Array  # [T, E] tracked
    code_std: jax.Array  # [E]


class Sample(NamedTuple):
    """Points and codes of one step; every point meets every code."""

    points: jax.Array  # [P, 3] canonical, metres: near the surface and in the box
    far: jax.Array  # [P // 8, 3] where nothing moves
    expr: jax.Array  # [C, E]


def make_domain(
    person: Person, codes: np.ndarray, *, resolution: int = 128
) -> tuple[Domain, Backward]:
    """Meshes the canonical head and measures what moves in it.

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
    surface, normals = surface[kept], mesh.normals[kept]
    backward = make_backward(person)
    some = codes[:: max(1, len(codes) // _CODES_FOR_MOTION)]

    @jax.jit
    def canonical_of(codes):
        # One code after the other: all at once would take half a gigabyte.
        return jax.lax.map(
            lambda code: move_back(backward, surface[None], code[None])[0][0], codes
        )

    canonical = canonical_of(jnp.asarray(some))
    spread = jnp.sum(jnp.std(canonical, axis=0), axis=-1) + 1e-6
    domain = Domain(
        surface=jnp.asarray(surface),
        normals=jnp.asarray(normals),
        motion=jnp.cumsum(spread) / jnp.sum(spread),
        codes=jnp.asarray(codes),
        code_std=jnp.std(jnp.asarray(codes), axis=0),
    )
    return domain, backward


def draw(key: jax.Array, domain: Domain, num_points: int, num_codes: int) -> Sample:
    """One step's sample.

    Half of the points lie near the surface, a quarter near what moves, a quarter in
    MonoNPHM's box. Codes are tracked ones, mixes of two, all with some noise.
    """
    keys = iter(jax.random.split(key, 11))

    def around(index, spread):
        offsets = spread * jax.random.normal(next(keys), (index.shape[0], 3))
        return domain.surface[index] + offsets

    quarter = num_points // 4
    last = domain.surface.shape[0]
    index = jax.random.randint(next(keys), (num_points - 2 * quarter,), 0, last)
    near = around(index, _NEAR)
    height = jax.random.uniform(next(keys), (quarter,))
    moving = around(jnp.searchsorted(domain.motion, height), _MOVING)
    low, high = METRES_PER_UNIT * jnp.array(TRACKING_BOX)
    low = low.at[1].set(NECK_HEIGHTS[1])
    box = low + (high - low) * jax.random.uniform(next(keys), (quarter, 3))

    far = jax.random.uniform(
        next(keys), (num_points // 8, 3), minval=-_FAR, maxval=_FAR
    )
    # Those that fell into the box move out of it, past the back of the head.
    inside = jnp.all((far > low) & (far < high), axis=-1, keepdims=True)
    far = jnp.where(inside, far.at[:, 2].set(-_FAR), far)

    num_tracked, width = domain.codes.shape
    first, second = (
        domain.codes[jax.random.randint(next(keys), (num_codes,), 0, num_tracked)]
        for _ in range(2)
    )
    share, is_mixed = (
        jax.random.uniform(k, (num_codes, 1)) for k in jax.random.split(next(keys))
    )
    share = jnp.where(is_mixed < _MIX_SHARE, share, 0.0)
    noise = _CODE_NOISE * domain.code_std
    noise = noise * jax.random.normal(next(keys), (num_codes, width))
    expr = first + share * (second - first) + noise
    return Sample(jnp.concatenate([near, moving, box]), far, expr)
