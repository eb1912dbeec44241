"""What the phases of one handler call share, and how Gaussians lie in memory."""

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.np.numpy_support import carray

from npga_jax.rasterizer.native.jit import inner, intrinsic

BLOCK = 4
"""A vector is a block of 4x4 pixels."""

TILE = 16
"""Pixels; 4x4 blocks. Lists are of these tiles, whatever tiles are counted."""

BLOCKS = (TILE // BLOCK) ** 2

GROUP = 4
"""Channels are padded with zeros to a multiple of this."""

DIGIT_BITS = 11
BINS = 1 << DIGIT_BITS
"""Depths are sorted by three digits of so many bits."""

BINS_BYTES = 3 * 8 * BINS

CHUNK = 512
"""Gaussians per item of a parallel loop."""

# A record: byte offsets of its float32 and int32 fields, colours last.
MEAN_X, MEAN_Y, QUAD_A, QUAD_B, QUAD_C, LOG2_OPACITY = range(0, 24, 4)
FIRST_X, LAST_X, FIRST_Y, LAST_Y, FIRST_ROW = range(24, 44, 4)
COLORS = 48

# A row of gradients: six sums over the pixels of a tile, padding, the colours.
SUM_X, SUM_Y, SUM_XX, SUM_XY, SUM_YY, SUM = range(0, 24, 4)
ROW_COLORS = 32

_NUMBERS = ("n", "channels", "width", "height", "tile_size", "max_isects", "dropping")
_DERIVED = ("padded", "record_bytes", "row_bytes", "columns", "num_tiles", "chunks")
_INPUTS = ("means2d", "radii", "depths", "conics", "opacities", "colors")
_OUTPUTS = ("image", "transmittance", "counts", "kept", "ids", "offsets")
_COTANGENTS = ("d_image", "d_transmittance")
_GRADIENTS = ("d_means2d", "d_conics", "d_opacities", "d_colors")
_SCRATCH = ("account", "records", "boundary", "rows")
PARAMS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *_NUMBERS,
            *_DERIVED,
            *_INPUTS,
            *_OUTPUTS,
            *_COTANGENTS,
            *_GRADIENTS,
            *_SCRATCH,
        )
    ]
)
"""Sizes, and addresses of float32 and int32 arrays.

`padded` channels are a multiple of `GROUP`; `columns` and `num_tiles` are of `TILE`.

`boundary` is the Gaussian of which only a part fits into the capacity, or -1. That part
may be no rectangle: record n holds its last row of counted tiles.
"""


@intrinsic
def _as_pointer(typingctx, address):
    def codegen(context, builder, sig, args):
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), codegen


@inner
def params_at(address):
    """The PARAMS record at an address."""
    return carray(_as_pointer(address), 1, PARAMS)[0]


@inner
def bins_at(address):
    """The counts of a radix sort, [3, BINS] int64, at an address."""
    return carray(_as_pointer(address), (3, BINS), np.int64)


@inner
def derive_sizes(p):
    """Fills in the sizes that follow from others."""
    p.padded = (p.channels + GROUP - 1) // GROUP * GROUP
    p.record_bytes, p.row_bytes = COLORS + 4 * p.padded, ROW_COLORS + 4 * p.padded
    p.columns = (p.width + TILE - 1) // TILE
    p.num_tiles = p.columns * ((p.height + TILE - 1) // TILE)
    p.chunks = (p.n + CHUNK - 1) // CHUNK
