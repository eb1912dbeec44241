"""What a layout of image files says, before it is known what of it is used."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from npga_jax.core import InputError
from npga_jax.data.driving import DrivingFile


class ImageView(NamedTuple):
    """One image and its camera."""

    path: Path
    K: np.ndarray  # [3, 3] float64, pixels of an image of `size`
    world2cam: np.ndarray  # [4, 4] float64, OpenCV, metres
    size: tuple[int, int]  # (W, H) that K is meant for; the file's may be another
    matte: Path | None = None  # 255 on the person; the image's own path: its alpha
    labels: Path | None = None  # a picture in facer numbering
    color: np.ndarray | None = None  # [3, 4] affine correction of colours in [0, 1]


ViewKey = tuple[str, int, str]
"""(sequence, frame, camera)."""


class OwnCodes(NamedTuple):
    """Driving codes that a layout brings along."""

    path: Path  # where they are, for messages
    read: Callable[[str, Sequence[int]], DrivingFile]
    """Codes of some frames of a sequence, as far as there are any."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ImageSet:
    """All images of one subject."""

    folder: Path
    views: Mapping[ViewKey, ImageView]
    fps: float  # of the counting of frames
    spacing: int = 1  # of the frames that there are
    codes: Mapping[str, OwnCodes] = dataclasses.field(default_factory=dict)
    """By name, as --capture.driving calls them; the same for all sequences."""
    held_out_sequence: str = ""
    """What the layout itself never trains on; "" for none."""
    held_out_camera: str = ""
    """Likewise; "" for the one in the middle."""
    notes: tuple[str, ...] = ()

    @property
    def sequences(self) -> tuple[str, ...]:
        """In the order in which they are met."""
        return tuple(dict.fromkeys(sequence for sequence, _, _ in self.views))

    @property
    def cameras(self) -> tuple[str, ...]:
        """In the order in which they are met."""
        return tuple(dict.fromkeys(camera for _, _, camera in self.views))


def read_json(path: Path, what: str) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
      path: The file.
      what: It should be, for messages.

    Raises:
      InputError: there is none, or it is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"there is no {path}: expected {what}. Copy or export it again."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read as JSON ({error}): expected {what}. Copy or export "
            "it again."
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object: {what}.")
    return content


def intrinsics(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """K [3, 3] float64 without skew."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)
