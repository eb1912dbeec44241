"""Prepares a raw capture: `python experiments/prepare.py --subject 074`."""

import dataclasses
import os
from pathlib import Path

from npga_jax.app import cli
from npga_jax.core import InputError, check_writable
from npga_jax.data import CaptureConfig, locate_subject
from npga_jax.preparation import (
    check_plates,
    draw_mattes,
    find_raw,
    link_raw,
    matte_capture,
    tasks_of,
    wrong_frames,
)


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """Make the mattes of a raw capture from its clean plates."""

    subject: str
    """Folder of the subject."""
    data_root: Path | None = None
    """Folder that holds the subjects; default: $NPGA_DATA."""
    output: Path | None = None
    """Data root of the prepared capture, where raw files appear as links; default: the
    capture itself."""
    width: int = 550
    """Width of the mattes in pixels, at most that of the videos."""
    workers: int = 0
    """Processes; 0: one per core."""
    capture: CaptureConfig = CaptureConfig()


def main(cfg: PrepareConfig) -> None:
    if cfg.width < 16:
        raise InputError(f"--width {cfg.width}: expected at least 16 pixels.")
    root, subject = locate_subject(cfg.subject, cfg.data_root)
    raw = find_raw(root, subject, cfg.capture)
    check_plates(raw)
    output = cfg.output / subject if cfg.output else raw.folder
    check_writable(output)
    link_raw(raw, output)
    tasks = tasks_of(raw, output, cfg.width)
    own = len(raw.videos) - len(tasks)
    if own:
        print(f"{own} of {len(raw.videos)} videos have mattes of your own: kept")
    workers = cfg.workers or os.cpu_count() or 1
    found = matte_capture(tasks, workers=min(workers, max(len(tasks), 1)))
    picture = output / "preparation" / "mattes.png"
    draw_mattes(tasks, picture)
    count = sum(len(checks) for checks in found.values())
    print(f"{count} mattes in {len(tasks)} videos: {output}; look at {picture}")
    for (sequence, camera), checks in sorted(found.items()):
        for frame_id, why in wrong_frames(checks).items():
            print(f"LOOKS WRONG  {sequence} camera {camera} frame {frame_id}: {why}")


if __name__ == "__main__":
    cli.run(main, PrepareConfig)
