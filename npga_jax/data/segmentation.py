"""The numbering of facer's label maps, and the regions that metrics are taken over."""

import numpy as np

from npga_jax.core import InputError

BACKGROUND = 0
NECK = 1  # with the torso, in captures that do not tell them apart
FACE = 2
TORSO = 3  # cloth
EARS = (4, 5)
BROWS = (6, 7)
EYES = (8, 9)
NOSE = 10
INNER_MOUTH = 11
LIPS = (12, 13)
HAIR = 14
OUTSIDE_FACE_BOX = 18

_FACE = frozenset({FACE, *EARS, *BROWS, *EYES, NOSE, INNER_MOUTH, *LIPS})

REGIONS: dict[str, frozenset[int]] = {
    "full": frozenset(range(256)),
    "head": _FACE | {HAIR},
    "face": _FACE,
    "hair": frozenset({HAIR}),
    "eyes": frozenset(EYES),
    "mouth": frozenset({INNER_MOUTH}),
    "parts": frozenset({*EYES, INNER_MOUTH, *LIPS}),
}
"""Labels of each region. `head` leaves out background, neck and torso; `parts` are what
training may look at more closely."""


def region_mask(labels: np.ndarray, region: str) -> np.ndarray:
    """Marks the pixels of a region.

    Args:
      labels: [H, W] uint8 in facer numbering.
      region: A key of `REGIONS`.

    Returns:
      [H, W] bool.

    Raises:
      InputError: if there is no such region.
    """
    if region not in REGIONS:
        raise InputError(
            f"there is no region '{region}'; regions are {', '.join(REGIONS)}."
        )
    is_member = np.zeros(256, bool)
    is_member[list(REGIONS[region])] = True
    return is_member[labels]
