"""Whether mattes are what they should be: 255 on the person, 0 on the background.

And what it takes where images were put on white with them before they were handed out.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_FAINT = 128
_ALMOST_BLACK = 8
_BARE = 2
"""Levels up to which a matte says that nothing of the person is there."""
_WHITE = 250
_LEAST_BARE = 0.01
"""Share of an image that must be bare for its background to be known."""


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


def has_white_corners(rgb: np.ndarray) -> bool:
    """Whether the upper corners of an image, where nobody is, are white.

    Args:
      rgb: [H, W, 3] uint8. If not, it is not on white, whatever its matte.
    """
    high, wide = (max(1, n // 20) for n in rgb.shape[:2])
    return bool(min(rgb[:high, :wide].mean(), rgb[:high, -wide:].mean()) >= _WHITE)


def is_on_white(rgb: np.ndarray, matte: np.ndarray) -> bool:
    """Whether an image [H, W, 3] uint8 is white where its matte [H, W] shows nobody."""
    bare = rgb[matte <= _BARE]
    if len(bare) < _LEAST_BARE * matte.size:
        return False
    return bool(np.quantile(bare, 0.05) >= _WHITE)


def take_off_white(rgb: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """The person's own colours of an image that was put on white.

    Such an image holds `matte * rgb + (1 - matte)` already: whoever puts it on white
    again would thin its rim twice. Putting the result on white gives the image back.

    Args:
      rgb: [H, W, 3] uint8 on white.
      matte: [H, W] uint8.

    Returns:
      [H, W, 3] uint8; white where nothing of the person is.
    """
    share = np.maximum(matte, 1)[..., None] / np.float32(255)
    colors = 255 - (255 - rgb.astype(np.float32)) / share
    colors[matte == 0] = 255
    return np.rint(np.clip(colors, 0, 255)).astype(np.uint8)
