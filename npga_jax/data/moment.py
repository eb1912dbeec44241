"""What captures of one moment share: a rig without a tracker, in a world of its own.

There is one sequence with one frame, and one code for it: zero. The head's frame is the
rig's: its origin where the cameras look, y up and z towards them.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from npga_jax.core import InputError
from npga_jax.data.driving import DrivingFile, driving_from_arrays
from npga_jax.data.image_set import ImageSet, ImageView, OwnCodes

SEQUENCE = "moment"
NAME = "still"
"""What --capture.driving calls the one code."""

_POSSIBLE = 0.05, 20.0
_USUAL = 0.3, 3.0
"""Metres: bounds of the median distance of cameras from where they look."""
_FPS = 24.0


def moment_set(
    folder: Path, views: Mapping[str, ImageView], *, unit: float, notes: Sequence[str]
) -> ImageSet:
    """A set of the images of one moment.

    Args:
      folder: The subject's.
      views: By camera, with poses in the world's own unit.
      unit: Metres of one such unit.
      notes: Sentences for people.

    Raises:
      InputError: the cameras cannot be in metres then.
    """
    if not 0 < unit < np.inf:
        raise InputError(
            f"--capture.world-unit {unit}: expected the metres of one unit of the "
            "world, more than 0."
        )
    scaled = {}
    for camera, view in views.items():
        pose = view.world2cam.copy()
        pose[:3, 3] *= unit
        scaled[SEQUENCE, 0, camera] = view._replace(world2cam=pose)
    frame = rig_frame(np.stack([v.world2cam for v in scaled.values()]))
    places = [-v.world2cam[:3, :3].T @ v.world2cam[:3, 3] for v in scaled.values()]
    away = float(np.median(np.linalg.norm(np.array(places) - frame[:3, 3], axis=1)))
    said = (
        f"the cameras are {away:.3g} m from where they look, with --capture.world-unit "
        f"{unit:g}"
    )
    if not _POSSIBLE[0] <= away <= _POSSIBLE[1]:
        raise InputError(
            f"{folder}: {said}; expected about 1 m of a head. Worlds of this layout "
            "have any scale: say how many metres one unit is, here perhaps "
            f"--capture.world-unit {unit / max(away, 1e-9):.3g}."
        )
    notes = list(notes)
    if not _USUAL[0] <= away <= _USUAL[1]:
        notes.append(f"{said[0].upper()}{said[1:]}: is that the scale of the world?")
    return ImageSet(
        folder=folder,
        views=scaled,
        fps=_FPS,
        codes={NAME: OwnCodes(folder, partial(_read_code, folder, frame))},
        notes=tuple(notes),
    )


def rig_frame(world2cam: np.ndarray) -> np.ndarray:
    """The frame that a rig gives the head that it looks at.

    Args:
      world2cam: [C, 4, 4] of cameras that look at one place.

    Returns:
      [4, 4] world_from_head. Its origin is the point nearest to all optical axes.
    """
    R, t = world2cam[:, :3, :3], world2cam[:, :3, 3]
    places = -np.einsum("cji,cj->ci", R, t)
    across = np.eye(3) - R[:, 2, :, None] * R[:, 2, None, :]
    middle = places.mean(axis=0)
    # One camera, or parallel ones, leave the depth open: it stays the cameras' mean.
    sums = across.sum(axis=0), np.einsum("cij,cj->i", across, places - middle)
    origin = middle + np.linalg.lstsq(*sums, rcond=1e-6)[0]
    up = -R[:, 1].mean(axis=0)
    up /= np.linalg.norm(up)
    front = -R[:, 2].mean(axis=0)
    front -= up * (up @ front)
    if np.linalg.norm(front) < 0.1:  # All around: the first camera is the front.
        front = -R[0, 2] + up * (up @ R[0, 2])
    front /= np.linalg.norm(front)
    frame = np.eye(4)
    frame[:3, :3] = np.stack([np.cross(up, front), up, front], axis=1)
    frame[:3, 3] = origin
    return frame


def _read_code(
    folder: Path, frame: np.ndarray, sequence: str, frames: Sequence[int]
) -> DrivingFile:
    count = len(frames)
    return driving_from_arrays(
        folder,
        {
            "frame_id": np.array(frames),
            "expr": np.zeros((count, 1), np.float32),
            "world_from_head": np.tile(frame, (count, 1, 1)),
            "expr_names": np.array([NAME]),
            "model": np.array(NAME),
            "head_unit": np.array("m"),
        },
    )
