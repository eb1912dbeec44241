"""Which files a capture in the NeRSemble layout has, and which of them it lacks."""

import dataclasses
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from npga_jax.core import InputError
from npga_jax.data import decoding as video
from npga_jax.data.capture import match_sequences

_SEQUENCE_NAME = re.compile(r"((EXP|EMO|SEN)-\d+|FREE|HAIR|GLASSES)(-.*)?")
_BACKGROUND = "BACKGROUND"

FILES: dict[video.Kind, tuple[str, str]] = {
    "rgb": ("images", ".mp4"),
    "alpha": ("alpha_maps", ".mp4"),
    "labels": ("segmentation", ".npz"),
}
"""Folder and suffix of each kind of file that is there per camera."""

T = TypeVar("T")


@dataclasses.dataclass(eq=False, kw_only=True)
class Findings:
    """Sentences for people: what is only worth knowing, and what must be mended."""

    notes: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)

    def attempt(self, function: Callable[..., T], *args: object) -> T | None:
        """Calls a function; an InputError becomes a problem, and the result None."""
        try:
            return function(*args)
        except InputError as error:
            self.problems.append(str(error))
            return None


def source_path(folder: Path, sequence: str, camera_id: str, kind: video.Kind) -> Path:
    """Where a camera's video or label maps are."""
    where, suffix = FILES[kind]
    return folder / "sequences" / sequence / where / f"cam_{camera_id}{suffix}"


def find_sequences(
    folder: Path, ignored: tuple[str, ...], findings: Findings
) -> tuple[str, ...]:
    """Lists the sequences that have videos, less the ignored (names or prefixes)."""
    parent = folder / "sequences"
    found = []
    for path in sorted(parent.iterdir()) if parent.is_dir() else []:
        if not path.is_dir() or path.name == _BACKGROUND:
            continue
        if not _SEQUENCE_NAME.fullmatch(path.name):
            findings.notes.append(f"{path.name} is not a NeRSemble sequence: ignored.")
        elif not any((path / "images").glob("cam_*.mp4")):
            findings.notes.append(f"{path.name} has no images/cam_*.mp4: ignored.")
        else:
            found.append(path.name)
    for prefix in ignored:
        left_out = match_sequences(tuple(found), prefix)
        if not left_out:
            findings.notes.append(f"There is no sequence '{prefix}' to ignore.")
        found = [s for s in found if s not in left_out]
    if not found:
        findings.problems.append(
            f"there is no sequence with videos in {parent}. Expected folders such as "
            "EXP-5-mouth/images/cam_222200037.mp4."
        )
    return tuple(found)


def find_cameras(
    folder: Path,
    sequences: tuple[str, ...],
    calibrated: tuple[str, ...],
    ignored: tuple[str, ...],
    findings: Findings,
) -> tuple[str, ...]:
    """Lists the cameras that have videos, in the order of the calibration.

    A camera that lacks a video in only some of the sequences is a problem.
    """
    present = {
        sequence: {
            path.stem.removeprefix("cam_")
            for path in (folder / "sequences" / sequence / "images").glob("cam_*.mp4")
        }
        for sequence in sequences
    }
    seen = set().union(*present.values())
    listed = [*calibrated, *sorted(seen - set(calibrated))]
    for serial in ignored:
        if serial not in listed:
            findings.notes.append(f"There is no camera '{serial}' to ignore.")
    cameras = [c for c in listed if c in seen and c not in ignored]
    unused = [c for c in listed if c not in seen and c not in ignored]
    if unused and cameras:
        findings.notes.append(
            f"{count_things(unused, 'calibrated camera')} without any video: "
            f"{', '.join(unused)}."
        )
    for camera in cameras:
        lacking = [s for s in sequences if camera not in present[s]]
        if lacking:
            others = set(sequences) - set(lacking)
            findings.problems.append(
                f"camera {camera} has no video in {', '.join(lacking)} but has one in "
                f"{count_things(others, 'other sequence')}: "
                f"{source_path(folder, lacking[0], camera, 'rgb')} is missing. "
                f"Supply it, or pass --capture.ignore-cameras {camera} or "
                f"--capture.ignore-sequences {' '.join(lacking)}."
            )
    if sequences and not cameras:
        findings.problems.append(
            f"no camera of {folder} is left: all that have videos are ignored."
        )
    return tuple(cameras)


def report_lacking(
    sequence: str,
    kind: video.Kind,
    lacking: list[str],
    num_cameras: int,
    findings: Findings,
) -> None:
    """Says what it means that cameras of a sequence lack mattes or label maps."""
    where = FILES[kind][0]
    if not lacking or kind == "rgb":  # Videos that lack are reported with the cameras.
        return
    if kind == "alpha" and len(lacking) < num_cameras:
        findings.problems.append(
            f"{sequence}/{where} lacks {', '.join(lacking)} but has other cameras. "
            f"Supply them, or pass --capture.ignore-cameras {' '.join(lacking)}."
        )
        return
    effect = {
        "alpha": "the background counts as part of the person",
        "labels": "no metrics by region there",
    }[kind]
    findings.notes.append(
        f"{sequence} has no {where} for {count_things(lacking, 'camera')}: {effect}."
    )


def count_things(things: Collection[object], noun: str) -> str:
    """'1 camera', '2 cameras'."""
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"
