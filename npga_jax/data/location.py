"""Finds a subject's data, or says what to do about it."""

import hashlib
import importlib.resources
import os
from pathlib import Path

from npga_jax.core import InputError, cache_root
from npga_jax.data.layouts import is_subject, recognised

DEMO = "demo"
_DEMO_SUBJECT = "001"
_LAYOUTS = ("", "nvs")  # Folders below the root that may hold the subjects.

_EXPECTED = """\
Expected below the data root (the NeRSemble v2 layout):
  SUBJECT/calibration/camera_params.json
  SUBJECT/calibration/color_calibration.json                   optional
  SUBJECT/sequences/SEQ/images/cam_SERIAL.mp4
  SUBJECT/sequences/BACKGROUND/image_SERIAL.jpg                clean plates, or instead:
  SUBJECT/sequences/SEQ/alpha_maps/cam_SERIAL.mp4              your matting
  SUBJECT/sequences/SEQ/pointclouds/frame_00000.pcd, ...       optional: your stereo's
  SUBJECT/sequences/SEQ/tracking/NAME.npz                      optional: your tracker's
  SUBJECT/sequences/SEQ/segmentation/cam_SERIAL.npz            optional
Or a SUBJECT that VHAP exported (transforms_train.json), nerfstudio's or COLMAP's folder
of one moment, or one of DiffusionAvatars' release: docs/own-data.md.
NeRSemble is given out by its authors at TU Munich on request: fill in their access
form, then download with their `nersemble-data` toolkit (v2).
Without any data, `--subject demo` runs on a small packaged capture."""


def locate_subject(subject: str, data_root: Path | None) -> tuple[Path, str]:
    """Finds the folder of a subject.

    Args:
      subject: Name of the subject's folder, or "demo" for the packaged capture.
      data_root: The folder that holds the subjects (or a benchmark download, whose
        subjects are in `nvs/`); None for $NPGA_DATA.

    Returns:
      The folder that holds the subject's, and the subject's name there.

    Raises:
      InputError: if there is no such subject.
    """
    if subject == DEMO:
        return Path(str(importlib.resources.files("npga_jax.demo"))), _DEMO_SUBJECT
    if not subject or subject in (".", "..") or "/" in subject or "\\" in subject:
        raise InputError(
            f"subject '{subject}' is not a folder's name. Give the name alone, like "
            "--subject 074, and the folder around it as --data-root."
        )
    if data_root is None:
        if not os.environ.get("NPGA_DATA"):
            raise InputError(
                f"subject '{subject}': where is the data? Neither --data-root nor "
                f"NPGA_DATA is set, so there is no folder to look for '{subject}' in."
                f"\n{_EXPECTED}"
            )
        data_root = Path(os.environ["NPGA_DATA"])
    root = data_root.expanduser().resolve()
    for layout in _LAYOUTS:
        if (root / layout / subject).is_dir():
            return root / layout, subject
    raise InputError(
        f"subject '{subject}': no folder {root / subject}. {_hint(root, subject)}"
        f"\n{_EXPECTED}"
    )


def prepared_folder(folder: Path, cache_dir: Path | None = None) -> Path:
    """Where mattes, clouds and label maps lie that are not in the capture itself.

    Files of the capture come before those that were made.

    Args:
      folder: The subject's folder; two copies do not share files.
      cache_dir: The user's choice; None for $NPGA_CACHE, else ~/.cache/npga_jax.

    Returns:
      The folder that holds sequences/SEQ/..., as the capture does. It need not exist.
    """
    folder = folder.resolve()
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    return cache_root(cache_dir) / "prepared" / f"{folder.name}-{digest}"


def _hint(root: Path, subject: str) -> str:
    """Guesses what went wrong."""
    if not root.is_dir():
        return f"The data root {root} itself does not exist."
    if is_subject(root):
        return (
            f"{root} is a subject itself: pass --data-root {root.parent} "
            f"--subject {root.name}."
        )
    found = _subjects_in(root)
    if not found:
        return f"No subject at all is in {root}."
    listed = ", ".join(found[:20]) + (", ..." if len(found) > 20 else "")
    if subject.isdecimal():
        padded = [s for s in found if s.isdecimal() and int(s) == int(subject)]
        if padded:
            return f"Did you mean {padded[0]}? Subjects there: {listed}."
    return f"Subjects there: {listed}."


def _subjects_in(root: Path) -> list[str]:
    return sorted(
        {
            folder.name
            for layout in _LAYOUTS
            if (root / layout).is_dir()
            for folder in (root / layout).iterdir()
            if folder.is_dir() and recognised(folder)
        }
    )
