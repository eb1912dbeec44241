"""Mattes of a person before a background (a clean plate), one frame at a time.

The plate, brightened and shadowed as in the frame, explains what is not the person. At
the rim, a pixel is a mixture of both in linear light. Its share of the person follows
from three things at once: how bright it is between the plate and the person nearby,
whose brightness varies (strands of hair do); its colour, which video keeps at half the
resolution only; and how much of its surroundings has the person's colour. What is
returned is the mean of the share given all of these, over a few levels.

Where there is no plate but an outline of the person, what is beside the outline stands
in for the plate.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage

from npga_jax.data import LINEAR_LEVELS
from npga_jax.preparation.background import (
    Background,
    background_as_seen,
    box_mean,
    fit_background,
    sensor_noise,
)

ndimage: Any = scipy.ndimage  # Types of what it returns are not known.

_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)

# Lengths are in pixels of an image of this size, as a head fills it.
_REFERENCE_PIXELS = 550 * 802
_CORE = 25  # From here inwards all is the person: no strand is as long.
_RIM = 3  # Within, a pixel may already be sure where the share says so.
_REACH = 14  # Outwards, where strands end.
_DEPTH = 16  # Over which surroundings change from plate to person, without colour.
_NEIGHBOURHOOD = 25  # Over which colours of the person are averaged.
_BESIDE = 8  # From here outwards of an outline all is background.

_LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares that are told apart."""
_WHOLE = 0.9
"""Probability that a pixel is wholly one or the other, on average."""
_CHROMA = 0.04
"""Deviation of a colour from the mixture, linear: half resolution smears it."""
_CHROMA_NOISE = 0.01
"""Difference of colours from which they tell plate and person apart."""
_CODING = 0.03
"""Deviation of brightness that coding leaves at edges, as a part of it."""
_COLOR_WINDOW = 5
_IN_PLATE = 1.5
"""Squared deviations up to which a pixel is the plate's."""
_SURE = 0.93
_PASSES = 2


class Matte(NamedTuple):
    """A frame's matte, and what it rests on."""

    alpha: np.ndarray  # [H, W] uint8, 255 on the person
    exposure: float  # of the frame, as a multiple of the plate's
    explained: float  # share of the image that the plate explains
    people: int  # large parts that do not touch


def estimate_matte(image: np.ndarray, plate: np.ndarray) -> Matte:
    """Separates a person from the background.

    Args:
      image: [H, W, 3] uint8, gamma-encoded, as the camera wrote it.
      plate: [H, W, 3] uint8, the same camera's image without a person.

    Returns:
      The matte. Where nobody is seen, it is black and `people` is 0.

    Raises:
      ValueError: sizes differ.
    """
    if image.shape != plate.shape:
        raise ValueError(f"image {image.shape} and plate {plate.shape} differ in size.")
    scale = float(np.sqrt(image[..., 0].size / _REFERENCE_PIXELS))
    frame = LINEAR_LEVELS[image].astype(np.float32)
    found = fit_background(frame, LINEAR_LEVELS[plate].astype(np.float32), scale)
    people = count_people(found.person)
    levels = np.zeros(image.shape[:2], np.uint8)
    if people:
        levels = _levels_of(frame, found, scale)
    return Matte(levels, found.exposure, found.explained, people)


def matte_of_outline(image: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Finds the rim of a person whose outline is about known, without a plate.

    Args:
      image: [H, W, 3] uint8, gamma-encoded.
      person: [H, W] bool, right within some pixels.

    Returns:
      [H, W] uint8, 255 on the person; black where nobody is, or nothing is beside.
    """
    scale = float(np.sqrt(person.size / _REFERENCE_PIXELS))
    frame = LINEAR_LEVELS[image].astype(np.float32)
    beside = _depth(person, scale) < -_BESIDE
    if not person.any() or not beside.any():
        return np.zeros(person.shape, np.uint8)
    color, _ = _nearby(frame, frame @ _LUMA, beside, scale)
    found = background_as_seen(frame, color, person)
    return _levels_of(frame, found, scale)


def _levels_of(frame: np.ndarray, found: Background, scale: float) -> np.ndarray:
    """[H, W] uint8: the share of the person, whom there must be."""
    alpha = np.zeros(frame.shape[:2], np.float32)
    box = _box(found.person, int(np.ceil(2 * _REACH * scale)))
    alpha[box] = _share(frame[box], found.crop(box), scale)
    return np.round(255 * alpha).astype(np.uint8)


def _share(frame: np.ndarray, found: Background, scale: float) -> np.ndarray:
    """[H, W] share of the person in every pixel."""
    depth = _depth(found.person, scale)
    near, luma = depth > -_REACH, frame @ _LUMA
    behind = found.color @ _LUMA
    chroma = _chroma(frame, luma) - _chroma(found.color, behind)
    core = depth > _CORE
    sure, share = core, core.astype(np.float32)
    for i in range(_PASSES):
        color, spread = _nearby(frame, luma, sure, scale)
        band = near & ~(sure & core)
        person_luma = color @ _LUMA
        to_person = _chroma(color, person_luma) - _chroma(found.color, behind)
        around = _surroundings(chroma, to_person, depth)
        share = np.where(sure, np.float32(1), np.float32(0))
        share[band] = _mean_share(
            luma[band],
            behind[band],
            person_luma[band],
            spread[band],
            chroma[band],
            to_person[band],
            around[band],
        )
        if i < _PASSES - 1:
            inside = (depth > _RIM) & (box_mean(share, 3) > _SURE)
            sure = ndimage.binary_opening(inside) | core
    share[(found.deviation < _IN_PLATE) & ~sure] = 0
    return share


def _mean_share(
    luma: np.ndarray,
    behind: np.ndarray,
    person: np.ndarray,
    spread: np.ndarray,
    chroma: np.ndarray,
    to_person: np.ndarray,
    around: np.ndarray,
) -> np.ndarray:
    """The mean of the levels, weighed by their probabilities: [B].

    Args:
      luma: [B] of the frame.
      behind: [B] of the background.
      person: [B] mean of the person nearby.
      spread: [B] its deviation.
      chroma: [B, 2] how far the frame's colour is from the background's.
      to_person: [B, 2] how far the person's is.
      around: [B] share of the person in the surroundings.
    """
    noise = sensor_noise(luma) + (_CODING * (luma + 0.02)) ** 2
    mixed = (1 - _WHOLE) / (len(_LEVELS) - 2) * np.minimum(4 * around * (1 - around), 1)
    scores = np.empty((len(_LEVELS), len(luma)), np.float32)
    for score, level in zip(scores, _LEVELS, strict=True):
        variance = (level * spread) ** 2 + noise
        error = luma - (level * person + (1 - level) * behind)
        off = ((chroma - level * to_person) ** 2).sum(-1)
        prior = {0.0: (1 - around) * _WHOLE, 1.0: around * _WHOLE}.get(level, mixed)
        score[:] = np.log(prior + 1e-3) - off / (2 * _CHROMA**2)
        score -= 0.5 * (error**2 / variance + np.log(variance))
    weights = np.exp(scores - scores.max(axis=0))
    return np.array(_LEVELS, np.float32) @ weights / weights.sum(axis=0)


def _surroundings(
    chroma: np.ndarray, to_person: np.ndarray, depth: np.ndarray
) -> np.ndarray:
    """[H, W] share of the person around every pixel, by colour and by depth."""
    along = box_mean((chroma * to_person).sum(-1), _COLOR_WINDOW)
    length = box_mean((to_person**2).sum(-1), _COLOR_WINDOW)
    by_color = np.clip(along / np.maximum(length, 1e-7), 0, 1)
    by_depth = np.clip(0.5 + depth / _DEPTH, 0, 1)
    trust = length / (length + _CHROMA_NOISE**2)
    return np.clip(trust * by_color + (1 - trust) * by_depth, 0.01, 0.99)


def _nearby(
    frame: np.ndarray, luma: np.ndarray, sure: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean colour [H, W, 3] and deviation of luma [H, W] of the nearest sure pixels.

    These may be the person's, or the background's.
    """
    step = 2
    size = max(1, round(_NEIGHBOURHOOD * scale / step))
    weight = sure[::step, ::step].astype(np.float32)
    total = box_mean(weight, size) + 1e-6

    def mean(values: np.ndarray) -> np.ndarray:
        return box_mean(values[::step, ::step] * weight, size) / total

    channels = [mean(frame[..., c]) for c in range(3)]
    first, second = mean(luma), mean(luma**2)
    channels.append(np.sqrt(np.maximum(second - first**2, 1e-5)))
    rows, columns = ndimage.distance_transform_edt(
        weight == 0, return_distances=False, return_indices=True
    )
    height, width = luma.shape
    at = rows[np.arange(height)[:, None] // step, np.arange(width) // step]
    beside = columns[np.arange(height)[:, None] // step, np.arange(width) // step]
    *color, spread = (c[at, beside] for c in channels)
    return np.stack(color, axis=-1), spread


def _depth(person: np.ndarray, scale: float) -> np.ndarray:
    """[H, W] how far within the person a pixel is, negative outside; reference px."""
    step = 2
    small = person[::step, ::step]
    depth = ndimage.distance_transform_edt(small) - ndimage.distance_transform_edt(
        ~small
    )
    whole = depth.astype(np.float32).repeat(step, axis=0).repeat(step, axis=1)
    return whole[: person.shape[0], : person.shape[1]] * np.float32(step / scale)


def _chroma(color: np.ndarray, luma: np.ndarray) -> np.ndarray:
    """[H, W, 2] red and blue beside the luma."""
    return np.stack([color[..., 0] - luma, color[..., 2] - luma], axis=-1)


def _box(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    """What holds all of a mask, and a margin."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (
        slice(max(rows[0] - margin, 0), rows[-1] + margin + 1),
        slice(max(columns[0] - margin, 0), columns[-1] + margin + 1),
    )


def count_people(person: np.ndarray) -> int:
    """Parts of at least a tenth of the largest, itself one in fifty of all pixels."""
    parts, count = ndimage.label(person)
    if not count:
        return 0
    sizes = np.bincount(parts.ravel())[1:]
    if sizes.max() < person.size / 50:
        return 0
    return int((sizes > sizes.max() / 10).sum())
