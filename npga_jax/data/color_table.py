"""Colour calibration of whole videos: each colour is worked out once.

A video has millions of pixels, but some ten thousand colours that come again in every
frame. What `apply_color_calibration` makes of them is kept in a table of all colours,
of which the system gives memory to the pages that are used.
"""

import functools
from collections.abc import Callable

import numpy as np

from npga_jax.data.color import apply_color_calibration

_NUM_COLORS = 1 << 24
_KNOWN = 1 << 24  # Beside a colour: black is no gap.
_PENDING = 1


class ColorTable:
    """What a colour calibration makes of the frames of a video."""

    def __init__(self, ccm: np.ndarray):
        """Takes the matrix [3, n]; see `apply_color_calibration`."""
        self._ccm = ccm
        self._table = np.zeros(_NUM_COLORS, np.uint32)

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """`apply_color_calibration` of an image [H, W, 3] uint8: the same levels.

        Raises:
          InputError: see there.
        """
        look_up = _look_up()
        if look_up is None:
            return apply_color_calibration(rgb, self._ccm)
        pixels = np.ascontiguousarray(rgb).reshape(-1, 3)
        out = np.empty_like(pixels)
        unknown, gaps = (np.empty(len(pixels), np.uint32) for _ in range(2))
        num_unknown, num_gaps = look_up(pixels, self._table, out, unknown, gaps)
        if num_unknown:
            self._learn(unknown[:num_unknown])
            at = gaps[:num_gaps]
            found = np.empty((num_gaps, 3), np.uint8)
            look_up(pixels[at], self._table, found, unknown, gaps[num_gaps:])
            out[at] = found
        return out.reshape(rgb.shape)

    def _learn(self, colors: np.ndarray) -> None:
        """Works out some colours [N] uint32, each 0xRRGGBB."""
        shifts = np.array([16, 8, 0], np.uint32)
        levels = (colors[:, None] >> shifts).astype(np.uint8)
        made = apply_color_calibration(levels, self._ccm).astype(np.uint32)
        self._table[colors] = _KNOWN | (made << shifts).sum(axis=-1, dtype=np.uint32)


@functools.cache
def _look_up() -> Callable[..., tuple[int, int]] | None:
    """The loop over pixels as machine code; None where numba cannot be imported."""
    try:
        import numba
    except ImportError:
        return None

    @numba.njit(nogil=True)
    def look_up(pixels, table, out, unknown, gaps):
        """Looks pixels [P, 3] up; lists unknown colours, each once, and their pixels.

        Returns how many colours are unknown, and how many pixels have one.
        """
        num_unknown = num_gaps = 0
        for i in range(len(pixels)):
            red, green, blue = pixels[i, 0], pixels[i, 1], pixels[i, 2]
            color = (np.int64(red) << 16) | (np.int64(green) << 8) | np.int64(blue)
            found = table[color]
            if found < _KNOWN:
                gaps[num_gaps] = i
                num_gaps += 1
            if found == 0:
                table[color] = _PENDING
                unknown[num_unknown] = color
                num_unknown += 1
            out[i, 0] = (found >> 16) & 255
            out[i, 1] = (found >> 8) & 255
            out[i, 2] = found & 255
        return num_unknown, num_gaps

    return look_up
