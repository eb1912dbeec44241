"""Whether mattes are what they should be: 255 on the person, 0 on the background."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_FAINT = 128
_ALMOST_BLACK = 8


class MatteLevels(NamedTuple):
    """Levels of one matte, 0 to 255."""

    brightest: float
    corners: float  # mean of the upper corners, where nobody is
    centre: float  # mean of the middle, where heads are


def matte_levels(matte: np.ndarray) -> MatteLevels:
    """Measures a matte [H, W] uint8."""
    height, width = matte.shape
    high, wide = max(1, height // 10), max(1, width // 10)
    top = matte[:high]
    middle = matte[
        height * 2 // 5 : height * 3 // 5 + 1, width * 2 // 5 : width * 3 // 5 + 1
    ]
    corners = (top[:, :wide].mean() + top[:, -wide:].mean()) / 2
    return MatteLevels(float(matte.max()), float(corners), float(middle.mean()))


def say_wrong_levels(levels: Sequence[MatteLevels], *, is_whole: bool) -> str:
    """Says what is wrong with a video of mattes.

    Args:
      levels: Of its frames.
      is_whole: Whether these are all; else only what one frame proves is said.

    Returns:
      A clause, or "" if nothing is wrong.
    """
    if not levels:
        return ""
    brightest = max(x.brightest for x in levels)
    if (is_whole and brightest < _FAINT) or 0 < brightest <= _ALMOST_BLACK:
        return f"its brightest pixel is {brightest:.0f} of 255"
    corners, centre = (float(np.mean([x[i] for x in levels])) for i in (1, 2))
    if corners > _FAINT > centre:
        return (
            f"it seems inverted: the upper corners are {corners:.0f} and the middle "
            f"{centre:.0f} on average"
        )
    return ""
