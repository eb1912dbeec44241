"""What is prepared, where, and how."""

import dataclasses
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from npga_jax.core import InputError, check_writable
from npga_jax.data import (
    Capture,
    CaptureConfig,
    layout_of,
    open_located,
    prepared_folder,
    tracking_output,
    video_cache,
)
from npga_jax.preparation import RawCapture, find_raw


@dataclasses.dataclass(frozen=True)
class Preparing:
    """What is prepared, where, and how."""

    root: Path  # holds the subjects
    name: str  # folder of the subject there
    capture: CaptureConfig
    output: Path
    """Folder of what is made: the capture's own, another with links to it, or the
    cache's for this capture (`data.prepared_folder`)."""
    codes: Path  # where tracked codes go: SEQ/tracking/nphm.npz below it
    prior: Path | None = None
    matte_width: int = 550
    points: int = 20_000
    workers: int = 0

    @property
    def num_workers(self) -> int:
        """Processes, or threads."""
        return self.workers or os.cpu_count() or 1

    @property
    def has_raw_layout(self) -> bool:
        """Whether mattes can be made: of videos in NeRSemble's layout only."""
        return layout_of(self.root / self.name, self.capture) == "nersemble"

    def raw(self) -> RawCapture:
        """What was handed out."""
        return find_raw(self.root, self.name, self.capture)

    def open(
        self, *, decode: bool, need_driving: bool = False, width: int = 0
    ) -> Capture:
        """Opens the capture, with what was made of it so far.

        Args:
          decode: whether its videos are decoded at once.
          need_driving: whether it must have been tracked.
          width: of its images in pixels; 0 for the settings'.
        """
        cfg = self.capture
        return open_located(
            self.root,
            self.name,
            dataclasses.replace(cfg, width=width or cfg.width),
            progress=False,
            decode=decode,
            need_driving=need_driving,
        )


def in_cache(root: Path, name: str, cfg: CaptureConfig, **options: Any) -> Preparing:
    """Preparing a capture that stays as it is: all goes to the cache.

    Args:
      root: holds the subjects.
      name: folder of the subject there.
      cfg: what to use of it.
      **options: further fields of `Preparing`.
    """
    folder = root / name
    output = prepared_folder(folder, cfg.cache_dir)
    return Preparing(root, name, cfg, output, tracking_output(folder, cfg), **options)


def check_disk(folder: Path, what: str, need: float) -> None:
    """Says what a step writes, and refuses it where the disk is too small.

    Args:
      folder: where it writes; it need not exist.
      what: it writes.
      need: bytes, about.

    Raises:
      InputError: the disk is too small, or the folder cannot be written.
    """
    check_writable(folder)
    there = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(there).free
    about, left = (video_cache.format_bytes(int(n)) for n in (need, free))
    if need > free:
        raise InputError(
            f"{what} take about {about}, but only {left} are free in {there}. Make "
            "room, or point --output or --capture.cache-dir at a larger disk."
        )
    print(f"{what}: about {about} in {folder} ({left} free)", file=sys.stderr)
