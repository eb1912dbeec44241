"""Compositing on the CPU by machine code that numba makes; JAX elsewhere.

Depth order, tile lists and blending of one camera are one call into XLA's FFI each way.
The pure path stays the reference, and is what other platforms get.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.rasterizer.compositing import Blocking
from npga_jax.rasterizer.native import ffi
from npga_jax.rasterizer.projection import Projection
from npga_jax.rasterizer.tiles import IsectCounts

_TILE = 16
TILE_SIZES = (4, 8, 16)

_NO_LIMIT = np.int64(np.iinfo(np.int64).max)
allocations = _NO_LIMIT
"""How many allocations a call may make; tests lower it to see what then happens."""


class _Inputs(NamedTuple):
    means2d: jax.Array  # [N, 2]
    radii: jax.Array  # [N, 2]
    depths: jax.Array  # [N]
    conics: jax.Array  # [N, 3]
    opacities: jax.Array  # [N]
    colors: jax.Array  # [N, F]


class _Results(NamedTuple):
    image: jax.Array  # [H, W, F]
    transmittance: jax.Array  # [H, W]
    counts: jax.Array  # [2] int32, wanted and dropped
    kept: jax.Array  # [N] int32, tiles that the capacity leaves to each Gaussian
    ids: jax.Array  # [M] int32, Gaussians of each 16x16 tile, front to back
    offsets: jax.Array  # [T + 1] int32, where each tile's begin


def why_not(tile_size: int) -> str:
    """Why the native path does not serve on this machine's CPU; empty if it does."""
    if tile_size not in TILE_SIZES:
        return f"tiles of {tile_size} pixels; native code takes those of 4, 8 and 16"
    return ffi.unavailable()


def _result_types(inputs, width, height, max_isects):
    n, channels = inputs.colors.shape
    num_tiles = -(-width // _TILE) * -(-height // _TILE)
    i32: Any = partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
    f32: Any = partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    return _Results(
        image=f32((height, width, channels)),
        transmittance=f32((height, width)),
        counts=i32((2,)),
        kept=i32((n,)),
        ids=i32((max_isects,)),
        offsets=i32((num_tiles + 1,)),
    )


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _composite(inputs, pure_fn, tile_size, types):
    return _composite_fwd(inputs, pure_fn, tile_size, types)[0]


def _composite_fwd(inputs, pure_fn, tile_size, types):
    def native(inputs):
        call = jax.ffi.ffi_call(ffi.TARGET, types, vmap_method="sequential")
        size = np.int32(tile_size)
        return _Results(*call(*inputs, tile_size=size, allocations=allocations))

    def pure(inputs):
        image, transmittance, counts = pure_fn(inputs)
        unused = (jnp.zeros(t.shape, t.dtype) for t in types[3:])
        return _Results(image, transmittance, jnp.stack(counts), *unused)

    results = jax.lax.platform_dependent(inputs, cpu=native, default=pure)
    return tuple(results[:3]), (inputs, results)


def _composite_bwd(pure_fn, tile_size, types, residuals, cotangents):
    inputs, results = residuals
    moving = (inputs.means2d, inputs.conics, inputs.opacities, inputs.colors)

    def native(inputs, results, cotangents):
        gradients = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in moving)
        call = jax.ffi.ffi_call(ffi.TARGET, gradients, vmap_method="sequential")
        size = np.int32(tile_size)
        arrays = (*inputs, *results, *cotangents)
        return tuple(call(*arrays, tile_size=size, allocations=allocations))

    def pure(inputs, results, cotangents):
        # Compiled for another platform than that of this process: rarely run.
        del results
        _, vjp = jax.vjp(lambda x: pure_fn(x)[:2], inputs)
        (d,) = vjp(cotangents)
        return d.means2d, d.conics, d.opacities, d.colors

    means2d, conics, opacities, colors = jax.lax.platform_dependent(
        inputs, results, tuple(cotangents[:2]), cpu=native, default=pure
    )
    zeros = jnp.zeros_like
    return (
        _Inputs(
            means2d,
            zeros(inputs.radii),
            zeros(inputs.depths),
            conics,
            opacities,
            colors,
        ),
    )


_composite.defvjp(_composite_fwd, _composite_bwd)


def composite_native(
    projected: Projection,
    colors: jax.Array,  # [N, F]
    *,
    pure_fn: Callable,
    width: int,
    height: int,
    max_isects: int,
    blocking: Blocking,
) -> tuple[jax.Array, jax.Array, IsectCounts]:
    """Same results as `pure_fn`, a composite function of the same arguments.

    Tiles of `blocking.tile_size` are counted; those that are worked off have 16x16
    pixels, of which only the 4x4 blocks that a Gaussian touches are looked at.
    """
    inputs = _Inputs(
        projected.means2d,
        projected.radii,
        projected.depths,
        projected.conics,
        projected.opacities,
        colors,
    )

    def pure(inputs):
        means2d, radii, depths, conics, opacities, colors = inputs
        return pure_fn(
            Projection(
                means2d, conics, depths, radii, opacities, invalid=jnp.zeros(0, bool)
            ),
            colors,
            width=width,
            height=height,
            max_isects=max_isects,
            blocking=blocking,
        )

    types = _result_types(inputs, width, height, max_isects)
    results: Any = _composite(inputs, pure, blocking.tile_size, types)
    image, transmittance, counts = results
    return image, transmittance, IsectCounts(counts[0], counts[1])
