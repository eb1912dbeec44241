"""A clean plate as it is seen in one frame: brighter or darker, with a soft shadow."""

from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage

ndimage: Any = scipy.ndimage  # Types of what it returns are not known.

_EXPOSURES = np.linspace(0.8, 1.2, 201)
_DARK = 0.03
"""Linear level of the plate below which ratios say little."""
_SHADOWS = (0.62, 1.03)
"""Factors by which a shadow may scale the plate; more is not the plate."""
_SHADOW_WIDTH = 0.03
"""Deviation over which shadows are averaged, of the image's height."""
_ROUGHNESS = 0.04
"""By which the factor of a pixel may differ from its surroundings'."""
_EXPLAINED = 3.0
_DIFFERENT = 6.0
"""Squared deviations from the plate, of what is and of what is not explained by it."""
_PART = 0.02
"""Parts of a person are at least this much of the largest."""


class Background(NamedTuple):
    """The plate as it is in a frame, and where it does not explain what is seen."""

    color: np.ndarray  # [H, W, 3] linear
    deviation: np.ndarray  # [H, W] squared deviations, 3 x 3 mean
    person: np.ndarray  # [H, W] bool, without holes
    exposure: float
    explained: float  # share of the image

    def crop(self, box: tuple[slice, slice]) -> "Background":
        """The part within a box."""
        return self._replace(
            color=self.color[box],
            deviation=self.deviation[box],
            person=self.person[box],
        )


def fit_background(frame: np.ndarray, plate: np.ndarray, scale: float) -> Background:
    """Fits exposure and shadow of a plate to a frame.

    The shadow is a smooth factor. It is measured where the frame is the plate times
    anything within reason, and carried on beneath the person.

    Args:
      frame: [H, W, 3] float32 linear.
      plate: [H, W, 3] float32 linear.
      scale: size of the image, 1 for one of 550 x 802.
    """
    gain = _exposure(frame, plate)
    plate = plate * gain
    noise = sensor_noise(frame) + sensor_noise(plate)
    noise += 2 * (0.004 * (plate + 0.02)) ** 2
    along = box_mean((frame * plate / noise).sum(-1), 5)
    length = box_mean((plate**2 / noise).sum(-1), 5)
    factor = along / length
    rest = frame - np.minimum(factor, 1.02)[..., None] * plate
    rest = box_mean((rest**2 / noise).mean(-1), 3)
    is_plate = (rest < _EXPLAINED) & (factor > _SHADOWS[0]) & (factor < _SHADOWS[1])
    is_plate = ndimage.binary_opening(is_plate, iterations=2)
    width = _SHADOW_WIDTH * frame.shape[0]
    for _ in range(2):
        shadow = _smooth_where(factor, is_plate, width)
        is_plate &= np.abs(factor - shadow) < _ROUGHNESS
        is_plate = ndimage.binary_opening(is_plate)
    color = plate * np.minimum(shadow, 1.02)[..., None]
    deviation = _deviation(frame, color)
    return Background(
        color=color,
        deviation=deviation,
        person=_whole_parts(deviation > _DIFFERENT, scale),
        exposure=float(gain.mean()),
        explained=float(is_plate.mean()),
    )


def background_as_seen(
    frame: np.ndarray, color: np.ndarray, person: np.ndarray
) -> Background:
    """A background whose colour [H, W, 3] and person [H, W] are known in the frame."""
    deviation = _deviation(frame, color)
    return Background(color, deviation, person, 1.0, float(1 - person.mean()))


def _deviation(frame: np.ndarray, color: np.ndarray) -> np.ndarray:
    """[H, W] squared deviations of a frame from the background, 3 x 3 mean."""
    noise = sensor_noise(frame) + sensor_noise(color)
    noise += (0.006 * (color + 0.02)) ** 2
    return box_mean(((frame - color) ** 2 / noise).mean(-1), 3)


def sensor_noise(linear: np.ndarray) -> np.ndarray:
    """Variance of a linear level: of photons, and of reading the sensor."""
    return linear / 4000 + 0.0015**2


def box_mean(values: np.ndarray, size: int) -> np.ndarray:
    """Mean of the square of `size` pixels around each of [H, W]."""
    return ndimage.uniform_filter(values, size, mode="nearest")


def _exposure(frame: np.ndarray, plate: np.ndarray) -> np.ndarray:
    """[3] by which the plate is brighter in the frame: the most frequent ratio."""
    bright = plate.mean(-1) > _DARK
    if not bright.any():
        return np.ones(3, np.float32)
    ratio = frame.mean(-1)[bright] / plate.mean(-1)[bright]
    counts, edges = np.histogram(ratio, bins=_EXPOSURES)
    counts = np.convolve(counts, np.ones(5), mode="same")
    most = edges[np.argmax(counts)] + 0.5 * (edges[1] - edges[0])
    near = np.abs(ratio - most) < 0.02
    if not near.any():
        return np.ones(3, np.float32)
    return np.median(frame[bright][near] / plate[bright][near], axis=0)


def _smooth_where(values: np.ndarray, where: np.ndarray, width: float) -> np.ndarray:
    """Averages what is marked, over a width in pixels; far from all, it is 1."""
    step = max(int(width / 3), 1)
    height, wide = values.shape
    pad = ((0, -height % step), (0, -wide % step))

    def small(array: np.ndarray) -> np.ndarray:
        blocks = np.pad(array.astype(np.float32), pad, mode="edge")
        blocks = blocks.reshape(
            blocks.shape[0] // step, step, blocks.shape[1] // step, step
        )
        return ndimage.gaussian_filter(
            blocks.mean((1, 3)), width / step, mode="nearest", truncate=3
        )

    mean = (small(np.where(where, values, 0)) + 1e-4) / (small(where) + 1e-4)
    whole = ndimage.zoom(mean, step, order=1, mode="nearest", grid_mode=True)
    return whole[:height, :wide]


def _whole_parts(different: np.ndarray, scale: float) -> np.ndarray:
    """The large parts of what is different, closed and filled."""
    parts, count = ndimage.label(ndimage.binary_opening(different))
    if not count:
        return np.zeros_like(different)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    kept = (sizes > _PART * sizes.max())[parts]
    kept = ndimage.binary_closing(kept, iterations=max(round(2 * scale), 1))
    return ndimage.binary_fill_holes(kept)
