"""Decodes videos once, to raw frames on disk that are read back one at a time.

Each source file becomes one .npy array [T, H, W(, 3)] uint8 and, written last, a .json
that says what it was made from. Only an array whose .json matches is ever trusted.
Frames are appended to a plain file, not to a memory map: a full disk is then an error
that can be explained, not a crash, and resident memory stays flat.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import shutil
import sys
import time
import tokenize
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from npga_jax.core import InputError, Progress, atomic_write, cache_root
from npga_jax.data import decoding as video
from npga_jax.data.color import apply_color_calibration
from npga_jax.data.color_table import ColorTable
from npga_jax.data.made_files import ALL_FRAMES, is_multiple

_FORMAT_VERSION = 2
_STALE_AFTER = 600.0  # Seconds after which an unfinished file has no writer any more.
_KNOBS = (
    "point --capture.cache-dir at a larger disk, or take less with a larger "
    "--capture.frame-stride or a smaller --capture.width"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One source file and the array that it becomes."""

    source: Path
    kind: video.Kind
    array: Path  # the .npy
    width: int
    height: int
    stride: int
    ccm: np.ndarray | None = None  # [3, n] colour calibration, for rgb only
    made: tuple[int, ...] = ALL_FRAMES  # strides of what is the source's own

    @property
    def sidecar(self) -> Path:
        """The .json beside the array."""
        return self.array.with_suffix(".json")

    def holds(self, frame_id: int) -> bool:
        """Whether the source has a frame of its own, and no repetition of another."""
        return is_multiple(frame_id, self.made)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of one frame."""
        channels = (3,) if self.kind == "rgb" else ()
        return (self.height, self.width, *channels)


def cache_folder(
    base: Path | None, subject: str, root: Path, width: int, stride: int
) -> Path:
    """Chooses the folder for a subject's frames.

    Args:
      base: The user's choice; None for $NPGA_CACHE, else ~/.cache/npga_jax.
      subject: Name of the subject.
      root: Where the subject's data is: two copies do not share frames.
      width: Of the frames.
      stride: Of the frames.
    """
    digest = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:10]
    return cache_root(base) / f"{subject}-{digest}" / f"w{width}-s{stride}"


def cached_contents(entry: Entry) -> video.Contents | None:
    """What the source truly holds, or None if it is not in the cache."""
    try:
        stored = json.loads(entry.sidecar.read_text(encoding="utf-8"))
        is_whole = entry.array.stat().st_size == stored["array_size"]
        if stored["fingerprint"] == _fingerprint(entry) and is_whole:
            contents = stored["contents"]
            return video.Contents(**contents | {"missing": tuple(contents["missing"])})
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def bytes_needed(entry: Entry, num_frames: int) -> int:
    """Disk need of an entry whose source has `num_frames` frames."""
    return -(-num_frames // entry.stride) * int(np.prod(entry.frame_shape))


def fill_cache(
    entries: Sequence[Entry], num_frames: Sequence[int], *, progress: bool = True
) -> None:
    """Decodes entries that are not in the cache.

    Args:
      entries: What to decode.
      num_frames: What the sources' headers say of their length.
      progress: Whether to say on stderr what is needed and how far it is.

    Raises:
      InputError: if the disk is too small or not writable, or a source is damaged.
    """
    if not entries:
        return
    folder = Path(os.path.commonpath([str(e.array.parent) for e in entries]))
    need = sum(bytes_needed(e, n) for e, n in zip(entries, num_frames, strict=True))
    _make_folder(folder)
    _remove_stale(folder)
    free = shutil.disk_usage(folder).free
    if progress:
        print(
            f"decoding {len(entries)} files into {folder}: takes {format_bytes(need)} "
            f"of {format_bytes(free)} free",
            file=sys.stderr,
        )
    if need > free:
        raise InputError(
            f"decoded frames need {format_bytes(need)}, but only {format_bytes(free)} "
            f"are free in {folder}: {_KNOBS}."
        )
    total = sum(num_frames)
    with Progress("decoding", total, unit="frames", show=progress) as shown:
        done = 0

        def report(num_frames: int) -> None:
            nonlocal done
            done += num_frames
            shown(min(done, total - 1))  # Headers can err: the last is said below.

        for entry in entries:
            _fill_entry(entry, report)
        shown(total)


_DAMAGED = (OSError, ValueError, IndexError, SyntaxError, tokenize.TokenError)
"""What reading a damaged array can raise: its header is a Python literal."""


def read_frame(entry: Entry, index: int) -> np.ndarray:
    """Reads one frame of an entry that is in the cache.

    Nothing stays open or mapped; repeated reads come from the page cache.

    Args:
      entry: The entry.
      index: Of the frame among those kept: raw frame // stride.

    Returns:
      [H, W, 3] or [H, W] uint8, a copy.

    Raises:
      InputError: if the array has gone, or has no such frame.
    """
    try:
        # Without a map, whose pages would be faulted in one by one: half the time.
        with open(entry.array, "rb") as file:
            np.lib.format.read_magic(file)
            shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
            if is_fortran or dtype != np.uint8 or shape[1:] != entry.frame_shape:
                raise ValueError(f"it holds {dtype} {shape}")
            if not 0 <= index < shape[0]:
                raise IndexError(f"it holds {shape[0]}")
            size = math.prod(entry.frame_shape)
            file.seek(index * size, os.SEEK_CUR)
            return np.fromfile(file, np.uint8, size).reshape(entry.frame_shape)
    except _DAMAGED as error:
        raise InputError(
            f"cached frame {index} of {entry.array} cannot be read ({error}). Start "
            "again: what is missing is decoded anew."
        ) from error


def read_first_frame(entry: Entry) -> np.ndarray:
    """The frame of index 0 from the source alone; nothing is cached.

    Returns:
      As `read_frame`.

    Raises:
      InputError: if it cannot be read.
    """
    frame = _resized(entry, video.first_frame(entry.source, entry.kind))
    return frame if entry.ccm is None else apply_color_calibration(frame, entry.ccm)


def format_bytes(count: int) -> str:
    """Bytes for people: '1.2 GB'."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.1f} MB"


def _fingerprint(entry: Entry) -> dict[str, Any]:
    """Everything the array depends on."""
    stat = entry.source.stat()
    ccm = None
    if entry.ccm is not None:
        ccm = hashlib.sha256(entry.ccm.astype("<f8").tobytes()).hexdigest()
    return {
        "format": _FORMAT_VERSION,
        "source_size": stat.st_size,
        "source_mtime_ns": stat.st_mtime_ns,
        "stride": entry.stride,
        "width": entry.width,
        "height": entry.height,
        "color_calibration": ccm,
    }


def _fill_entry(entry: Entry, report: Callable[[int], None]) -> None:
    """Decodes one source; leaves either a whole array or none."""
    _make_folder(entry.array.parent)
    fingerprint = _fingerprint(entry)  # Of before: a change meanwhile is noticed.
    entry.sidecar.unlink(missing_ok=True)
    with atomic_write(entry.array, instead=_KNOBS) as file:
        contents = _write_frames(entry, file, report)
        array_size = file.seek(0, os.SEEK_END)
    content = {
        "fingerprint": fingerprint,
        "contents": dataclasses.asdict(contents),
        "array_size": array_size,
    }
    with atomic_write(entry.sidecar, instead=_KNOBS) as file:
        file.write(json.dumps(content).encode())


def _write_frames(
    entry: Entry, file: BinaryIO, report: Callable[[int], None]
) -> video.Contents:
    num_kept = 0
    corrected = None if entry.ccm is None else ColorTable(entry.ccm)

    def write_frame(frame: np.ndarray) -> None:
        nonlocal num_kept
        frame = _resized(entry, frame)
        if corrected is not None:
            frame = corrected(frame)
        file.write(np.ascontiguousarray(frame).data)
        num_kept += 1
        report(entry.stride)

    _write_header(file, 0, entry.frame_shape)
    start = file.tell()
    contents = video.decode(entry.source, entry.kind, entry.stride, write_frame)
    file.seek(0)
    _write_header(file, num_kept, entry.frame_shape)
    # NumPy pads headers so that the first axis can grow in place.
    assert file.tell() == start
    return contents


def _resized(entry: Entry, frame: np.ndarray) -> np.ndarray:
    """A frame of the source in the size that is used."""
    return video.resize(frame, entry.kind, entry.width, entry.height)


def _write_header(file: BinaryIO, num_frames: int, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": (num_frames, *shape)}
    np.lib.format.write_array_header_1_0(file, header)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_writable = os.access(folder, os.W_OK)
        reason = "not writable"
    except OSError as error:
        is_writable, reason = False, error.strerror or str(error)
    if not is_writable:
        raise InputError(
            f"decoded frames cannot be written to {folder} ({reason}). Choose another "
            "place with --capture.cache-dir."
        )


def _remove_stale(folder: Path) -> None:
    """Removes what killed processes left; a living one writes all the time."""
    for part in folder.rglob("*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _STALE_AFTER:
                part.unlink()
