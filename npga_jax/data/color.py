"""Colour calibration by a polynomial of linear RGB (Cheung et al. 2004)."""

import numpy as np

from npga_jax.core import InputError

_CHUNK = 1 << 16  # Pixels at a time, so that memory does not follow the image.

# The exponents of R, G and B in each term of each known polynomial.
_RGB = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
_PAIRS = ((1, 1, 0), (1, 0, 1), (0, 1, 1))
_SQUARES = ((2, 0, 0), (0, 2, 0), (0, 0, 2))
_TRIPLE = ((1, 1, 1),)
_ONE = ((0, 0, 0),)
_TERMS = {
    3: _RGB,
    4: _RGB + _ONE,
    5: _RGB + _TRIPLE + _ONE,
    7: _RGB + _PAIRS + _ONE,
    8: _RGB + _PAIRS + _TRIPLE + _ONE,
    10: _RGB + _PAIRS + _SQUARES + _ONE,
    11: _RGB + _PAIRS + _SQUARES + _TRIPLE + _ONE,
}


def _linear_from_srgb(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


# The linear value of each of the 256 levels: the way in by indexing, the way back by
# searching. That truncates to a level exactly as 255 * OETF(x) does, but takes no
# power per pixel and cannot fall one level short by rounding.
LINEAR_LEVELS = _linear_from_srgb(np.arange(256) / 255.0)
_THRESHOLDS = LINEAR_LEVELS[1:] - 1e-9


def expand_polynomial(linear: np.ndarray, num_terms: int) -> np.ndarray:
    """Writes out the polynomial's terms.

    Args:
      linear: [P, 3] linear RGB.
      num_terms: 3, 4, 5, 7, 8, 10 or 11.

    Returns:
      [P, num_terms].

    Raises:
      InputError: for any other number of terms.
    """
    if num_terms not in _TERMS:
        raise InputError(
            f"a colour calibration with {num_terms} terms is not known; expected "
            f"3 x n matrices with n one of {', '.join(map(str, _TERMS))}."
        )
    r, g, b = linear.T
    terms = [r**i * g**j * b**k for i, j, k in _TERMS[num_terms]]
    return np.stack(terms, axis=-1)


def apply_color_calibration(rgb: np.ndarray, ccm: np.ndarray) -> np.ndarray:
    """Corrects the colours of an image.

    Args:
      rgb: [..., 3] uint8, gamma-encoded (sRGB).
      ccm: [3, n] colour correction matrix over the polynomial's n terms.

    Returns:
      [..., 3] uint8, clipped and truncated.

    Raises:
      InputError: if n is not one of the known polynomials.
    """
    pixels = rgb.reshape(-1, 3)
    out = np.empty_like(pixels)
    for start in range(0, len(pixels), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        terms = expand_polynomial(LINEAR_LEVELS[pixels[chunk]], ccm.shape[1])
        out[chunk] = np.searchsorted(_THRESHOLDS, terms @ ccm.T, side="right")
    return out.reshape(rgb.shape)
