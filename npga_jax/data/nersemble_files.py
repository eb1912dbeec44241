"""Which files a capture in the NeRSemble layout has, and which of them it lacks."""

import re
from collections.abc import Mapping
from pathlib import Path

from npga_jax.data import decoding as video
from npga_jax.data.capture import match_sequences
from npga_jax.data.findings import Findings, count_things

_SEQUENCE_NAME = re.compile(r"((EXP|EMO|SEN)-\d+|FREE|HAIR|GLASSES)(-.*)?")
_BACKGROUND = "BACKGROUND"

FILES: dict[video.Kind, tuple[str, str]] = {
    "rgb": ("images", ".mp4"),
    "alpha": ("alpha_maps", ".mp4"),
    "labels": ("segmentation", ".npz"),
}
"""Folder and suffix of each kind of file that is there per camera."""

_CLOUD_NAME = re.compile(r"frame_(\d+)\.pcd", re.IGNORECASE)


def find_sources(
    folder: Path, sequence: str, kind: video.Kind, prepared: Path | None = None
) -> dict[str, Path]:
    """Lists the files of a kind by camera; the suffix may be in capitals.

    Args:
      folder: The subject's.
      sequence: Its name.
      kind: Of file.
      prepared: Folder of what was made of the capture (`prepared_folder`): its files
        are taken where the capture has none.
    """
    where, suffix = FILES[kind]
    name = re.compile(rf"cam_(.+){re.escape(suffix)}", re.IGNORECASE)
    found: dict[str, Path] = {}
    for place in (folder, prepared) if prepared else (folder,):
        for path in _list_files(place / "sequences" / sequence / where):
            if match := name.fullmatch(path.name):
                found.setdefault(match[1], path)
    return found


def find_clouds(
    folder: Path,
    sequences: tuple[str, ...],
    findings: Findings,
    prepared: Path | None = None,
) -> dict[tuple[str, int], Path]:
    """Lists the point clouds by sequence and frame, with or without leading zeros.

    Args:
      folder: The subject's.
      sequences: Their names.
      findings: Gets notes and problems.
      prepared: See `find_sources`.
    """
    clouds = _clouds_in(folder, sequences, findings)
    if prepared:
        clouds = _clouds_in(prepared, sequences, findings) | clouds
    return clouds


def _clouds_in(
    folder: Path, sequences: tuple[str, ...], findings: Findings
) -> dict[tuple[str, int], Path]:
    clouds: dict[tuple[str, int], Path] = {}
    for sequence in sequences:
        others = []
        for path in _list_files(folder / "sequences" / sequence / "pointclouds"):
            match = _CLOUD_NAME.fullmatch(path.name)
            if not match:
                others.append(path.name)
                continue
            first = clouds.setdefault((sequence, int(match[1])), path)
            if first != path:
                findings.problems.append(
                    f"{first} and {path.name} beside it are of the same frame. Delete "
                    "one of them."
                )
        if others:
            findings.notes.append(
                f"{count_things(others, 'file')} in {sequence}/pointclouds are not "
                f"called frame_NUMBER.pcd, like {others[0]}: ignored."
            )
    return clouds


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
        elif find_sources(folder, path.name, "rgb"):
            found.append(path.name)
        else:
            there = [file.name for file in _list_files(path / "images")]
            but = f" (but {there[0]})" if there else ""
            findings.notes.append(f"{path.name} has no images/cam_*.mp4{but}: ignored.")
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
    present = {s: set(find_sources(folder, s, "rgb")) for s in sequences}
    seen: set[str] = set().union(*present.values())
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
                f"sequences/{lacking[0]}/images/cam_{camera}.mp4 is missing. "
                f"Supply it, or pass --capture.ignore-cameras {camera} or "
                f"--capture.ignore-sequences {' '.join(lacking)}."
            )
    if sequences and not cameras:
        findings.problems.append(
            f"no camera of {folder} is left: all that have videos are ignored."
        )
    return tuple(cameras)


def report_lacking(
    kind: video.Kind, lacking: Mapping[str, list[str]], num_cameras: int, out: Findings
) -> None:
    """Says what it means that cameras lack mattes or label maps.

    Args:
      kind: Of the files that may lack.
      lacking: Cameras without one, by sequence.
      num_cameras: How many there are.
      out: Gets the notes and problems.
    """
    where = FILES[kind][0]
    without = [s for s, cameras in lacking.items() if len(cameras) == num_cameras]
    partly = [s for s, cameras in lacking.items() if 0 < len(cameras) < num_cameras]
    if kind == "labels":
        if without and len(without) == len(lacking):
            out.notes.append(
                f"There is no {where} in any sequence: no metrics by region, nor eyes "
                "and mouth for --loss.parts."
            )
            return
        for sequence in [s for s, cameras in lacking.items() if cameras]:
            out.notes.append(
                f"{sequence} has no {where} for "
                f"{count_things(lacking[sequence], 'camera')}: no metrics by region "
                "there, nor eyes and mouth for --loss.parts."
            )
        return
    if kind == "rgb":  # Videos that lack are reported with the cameras.
        return
    instead = "pass --capture.no-mattes to use none at all (the background then counts "
    instead += "as part of the person)"
    if without and len(without) == len(lacking):
        out.notes.append(
            f"There are no {where} in any sequence: the background counts as part of "
            "the person."
        )
    elif without:
        out.problems.append(
            f"{', '.join(without)} {'has' if len(without) == 1 else 'have'} no {where} "
            f"but {count_things(set(lacking) - set(without), 'other sequence')} have: "
            "the background would count as part of the person there. Supply them (or "
            "run experiments/prepare.py again, if it was interrupted), or "
            f"pass --capture.ignore-sequences {' '.join(without)}, or {instead}."
        )
    for sequence in partly:
        cameras = " ".join(lacking[sequence])
        out.problems.append(
            f"{sequence}/{where} lacks {cameras} but has other cameras. Supply them "
            "(or run experiments/prepare.py again, if it was interrupted), or "
            f"pass --capture.ignore-cameras {cameras}, or {instead}."
        )


def _list_files(folder: Path) -> list[Path]:
    there = folder.iterdir() if folder.is_dir() else ()
    return sorted(p for p in there if p.is_file() and not p.name.startswith("."))
