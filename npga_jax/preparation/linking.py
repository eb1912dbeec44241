"""A prepared folder of its own: what was handed out, by links, beside what is made."""

import filecmp
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from npga_jax.core import InputError
from npga_jax.data import LANDMARKS, PREPARATION, record_path
from npga_jax.preparation.cloud_records import forget_checks
from npga_jax.preparation.raw import (
    ALPHA_MAPS,
    CLOUDS,
    CODES,
    LABELS,
    PLATES,
    RawCapture,
)
from npga_jax.preparation.records import sequence_record

_MADE = (ALPHA_MAPS, CLOUDS, LABELS, CODES, LANDMARKS.parent.name)
"""Folders of a sequence in which what is made comes beside what is the user's own."""
_RECORDS = {ALPHA_MAPS: "mattes", LABELS: "labels"}
_REPLACED = PREPARATION / "replaced"
_CLOUD = re.compile(r"frame_0*(\d+)\.pcd", re.IGNORECASE)


def link_raw(raw: RawCapture, output: Path) -> list[Path]:
    """Makes all that was handed out appear in the prepared folder, by links.

    Where links are impossible, files are copied. The user's own files take the place
    of those that were made before they came: nothing is deleted, but moved away.

    Args:
      raw: what was handed out.
      output: the prepared folder.

    Returns:
      Where files are now that were moved away.

    Raises:
      InputError: the folder cannot be written, or was made of another capture.
    """
    moved: list[Path] = []
    try:
        for source in (raw.folder / "calibration", raw.folder / PLATES):
            _link(source, output / source.relative_to(raw.folder), output)
        for sequence in raw.sequences:
            for path in sorted((raw.folder / "sequences" / sequence).iterdir()):
                target = output / path.relative_to(raw.folder)
                if path.name not in _MADE or not path.is_dir():
                    _link(path, target, output)
                    continue
                own = sorted(path.iterdir())
                _forget(output, sequence, path.name, own)
                moved += _make_room(own, target, output)
                for source in own:
                    _link(source, target / source.name, output)
    except OSError as error:
        raise InputError(
            f"{output} cannot be written ({error.strerror}); choose another --output."
        ) from error
    return moved


def _link(source: Path, target: Path, output: Path) -> None:
    if target.is_symlink() and not target.exists():
        target.unlink()  # What it led to is gone.
    if target.is_symlink() and target.resolve() != source.resolve():
        raise InputError(
            f"{output} was made of {target.resolve()}, not of {source}; choose another "
            "--output."
        )
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.symlink(source, target, target_is_directory=source.is_dir())
    except OSError:
        _copy(source, target)


def _make_room(own: Iterable[Path], folder: Path, output: Path) -> list[Path]:
    """Moves files away that stand for the same as the user's own.

    Links are the user's own, and so are copies of them.

    Args:
      own: the user's files of one folder.
      folder: where they are to appear.
      output: the prepared folder.

    Returns:
      Where the files are now.
    """
    there = defaultdict(list)
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_file() and not path.is_symlink():
            there[_stands_for(path)].append(path)
    names = {path.name for path in own}
    moved = []
    for source in own:
        for path in there[_stands_for(source)]:
            is_copy = path.name == source.name and _is_same(path, source)
            if is_copy or path.name in names - {source.name}:
                continue
            place = _free(output / _REPLACED / path.relative_to(output))
            place.parent.mkdir(parents=True, exist_ok=True)
            moved.append(path.rename(place))
    return moved


def _is_same(path: Path, other: Path) -> bool:
    return filecmp.cmp(path, other, shallow=False)


def _stands_for(path: Path) -> str:
    """The same for files of one frame, camera or tracker, however they are written."""
    cloud = _CLOUD.fullmatch(path.name)
    is_camera = path.parent.name in _RECORDS
    return cloud[1] if cloud else path.name.lower() if is_camera else path.name


def _free(path: Path) -> Path:
    """A path that there is not: nothing that was moved away is overwritten."""
    count = 1
    found = path
    while found.exists():
        count += 1
        found = path.with_name(f"{path.stem}_{count}{path.suffix}")
    return found


def _forget(output: Path, sequence: str, kind: str, own: Iterable[Path]) -> None:
    """Drops records of what was made where the user's own files are now."""
    frames = [int(m[1]) for m in (_CLOUD.fullmatch(p.name) for p in own) if m]
    if kind == CLOUDS:
        forget_checks(output, sequence, frames)
    records = []
    if kind in _RECORDS:
        cameras = [p.stem.removeprefix("cam_") for p in own]
        records = [record_path(output, _RECORDS[kind], sequence, c) for c in cameras]
    elif LANDMARKS.name in (path.name for path in own):
        records = [sequence_record(output, LANDMARKS.parent.name, sequence)]
    for record in records:
        record.unlink(missing_ok=True)
        record.with_suffix(".png").unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    """Copies a file or a folder, so that what is cut short is not taken for whole."""
    part = target.with_name(f"{target.name}.part")
    if source.is_dir():
        shutil.copytree(source, part, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, part)
    part.replace(target)
