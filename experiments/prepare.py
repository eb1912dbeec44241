"""Prepares a raw capture: `python experiments/prepare.py --subject 074`."""

import dataclasses
import os
from pathlib import Path
from typing import Literal

from npga_jax.app import cli
from npga_jax.core import InputError, check_writable
from npga_jax.data import Capture, CaptureConfig, locate_subject, open_located
from npga_jax.preparation import (
    RawCapture,
    draw_mattes,
    find_raw,
    link_raw,
    make_clouds,
    matte_capture,
    tasks_of,
    wrong_clouds,
    wrong_frames,
)

_LEAST_WIDTH = 16
_STEREO_WIDTH = 275
"""Of the images that clouds are made from: finer ones gave no better points."""


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """Make mattes (from clean plates) and point clouds (by stereo) of a raw capture."""

    subject: str
    """Folder of the subject."""
    data_root: Path | None = None
    """Folder that holds the subjects; default: $NPGA_DATA."""
    output: Path | None = None
    """Data root of the prepared capture, where raw files appear as links; default: the
    capture itself."""
    steps: tuple[Literal["mattes", "clouds"], ...] = ("mattes", "clouds")
    """What to make; what is there already is kept."""
    width: int = 550
    """Width of the mattes in pixels, at most that of the videos."""
    points: int = 20_000
    """Points of a cloud, about."""
    workers: int = 0
    """Processes, or threads; 0: one per core."""
    capture: CaptureConfig = CaptureConfig()


def main(cfg: PrepareConfig) -> None:
    for name, value, least in (("width", cfg.width, _LEAST_WIDTH),
                               ("points", cfg.points, 1000)):  # fmt: skip
        if value < least:
            raise InputError(f"--{name} {value}: expected at least {least}.")
    root, subject = locate_subject(cfg.subject, cfg.data_root)
    raw = find_raw(root, subject, cfg.capture)
    output = cfg.output / subject if cfg.output else raw.folder
    check_writable(output)
    link_raw(raw, output)
    workers = cfg.workers or os.cpu_count() or 1
    if "mattes" in cfg.steps:
        make_mattes(cfg, raw, output, workers)
    if "clouds" in cfg.steps:
        make_missing_clouds(cfg, raw, output, workers)


def make_missing_clouds(
    cfg: PrepareConfig, raw: RawCapture, output: Path, workers: int
) -> None:
    """Makes the clouds that lack, and says what was found."""
    width = min(_STEREO_WIDTH, raw.video_size[0])
    opened = dataclasses.replace(cfg.capture, width=width)

    def look(decode: bool) -> Capture:
        return open_located(
            output.parent, output.name, opened, decode=decode, need_driving=False
        )

    capture = look(decode=False)
    own = sum(capture.has_points(t) for t in capture.timesteps)
    if own:
        print(f"{own} of {len(capture.timesteps)} frames have clouds: kept")
    if own == len(capture.timesteps):
        return
    found = make_clouds(
        look(decode=True), output, num_points=cfg.points, workers=workers
    )
    mean = sum(c.seconds for c in found.values()) / max(len(found), 1)
    print(f"{len(found)} clouds, {mean:.1f} s a frame: {output}")
    for timestep, why in wrong_clouds(found).items():
        print(f"LOOKS WRONG  {timestep.sequence} frame {timestep.frame_id}: {why}")


def make_mattes(
    cfg: PrepareConfig, raw: RawCapture, output: Path, workers: int
) -> None:
    """Makes the mattes that lack, and says what was found."""
    tasks = tasks_of(raw, output, cfg.width)
    own = len(raw.videos) - len(tasks)
    if own:
        print(f"{own} of {len(raw.videos)} videos have mattes of your own: kept")
    if not tasks:
        return
    found = matte_capture(tasks, workers=min(workers, len(tasks)))
    picture = output / "preparation" / "mattes.png"
    draw_mattes(tasks, picture)
    count = sum(len(checks) for checks in found.values())
    print(f"{count} mattes in {len(tasks)} videos: {output}; look at {picture}")
    for (sequence, camera), checks in sorted(found.items()):
        for frame_id, why in wrong_frames(checks).items():
            print(f"LOOKS WRONG  {sequence} camera {camera} frame {frame_id}: {why}")


if __name__ == "__main__":
    cli.run(main, PrepareConfig)
