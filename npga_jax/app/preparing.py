"""From a raw capture to one to train on: mattes, clouds, codes, label maps."""

import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from npga_jax.app.deciding import check_before_preparing, make_codes
from npga_jax.core import InputError, check_writable
from npga_jax.data import (
    TRACKED,
    Capture,
    CaptureConfig,
    Timestep,
    layout_of,
    open_capture,
    open_located,
    prepared_folder,
    tracking_output,
    video_cache,
    widest,
)
from npga_jax.preparation import (
    FEWEST_CAMERAS,
    checks_of,
    draw_mattes,
    files_to_label,
    find_raw,
    frames_without_clouds,
    label_capture,
    make_clouds,
    matte_capture,
    sheet_path,
    tasks_of,
    wrong_clouds,
    wrong_frames,
)
from npga_jax.tracking import model_name, open_prior, summary, track_subject
from npga_jax.training import TrainConfig

STEREO_WIDTH = 275
"""Of the images that clouds are made from: finer ones gave no better points."""
_MATTE_BYTES = 0.06
"""Of a matte's pixel, in its video; measured, doubled."""
_POINT_BYTES = 30
_MAP_BYTES = 0.05
"""Of a label map's pixel, packed; measured, doubled."""


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


def open_prepared(
    cfg: TrainConfig,
    job: Preparing,
    untracked: tuple[str, ...],
    stages: dict[str, float],
) -> Capture:
    """Opens the capture, once what it lacks is made: mattes, clouds, codes, labels.

    Args:
      cfg: settings of the run.
      job: where it is, and where what is made goes.
      untracked: sequences without codes.
      stages: gets the seconds of each step.
    """
    sequences = check_before_preparing(cfg, job.root, job.name)
    stages |= prepare_missing(job, untracked)
    if untracked:
        began = time.perf_counter()
        make_codes(cfg, job.root, job.name, sequences, untracked)
        stages["tracking"] = time.perf_counter() - began
    capture = open_capture(cfg.subject, cfg.data_root, cfg.capture)
    if lacks_labels(job, capture):
        began = time.perf_counter()
        make_labels(job)
        capture = open_capture(cfg.subject, cfg.data_root, cfg.capture)
        stages["labels"] = time.perf_counter() - began
    return capture


def prepare_missing(job: Preparing, untracked: Collection[str]) -> dict[str, float]:
    """Makes the mattes and clouds that training and tracking need and have not.

    Mattes are made where there are clean plates, clouds where a sequence that is to be
    tracked has none of its own.

    Args:
      job: what is prepared.
      untracked: sequences that are to be tracked.

    Returns:
      Seconds of each step that made something.

    Raises:
      InputError: something is wrong with the capture, or it cannot be written.
    """
    seconds: dict[str, float] = {}
    if job.capture.mattes and _lacks_mattes(job):
        began = time.perf_counter()
        make_mattes(job)
        seconds["mattes"] = time.perf_counter() - began
    if untracked:
        capture = job.open(decode=False)
        lacking = frames_without_clouds(capture, job.output, untracked)
        if lacking and capture.has_mattes and len(capture.cameras) >= FEWEST_CAMERAS:
            began = time.perf_counter()
            make_missing_clouds(job, lacking)
            seconds["clouds"] = time.perf_counter() - began
    return seconds


def _lacks_mattes(job: Preparing) -> bool:
    """Whether there are clean plates, and videos without mattes."""
    if not _has_plates_layout(job):
        return False
    raw = find_raw(job.root, job.name, job.capture)
    tasks = tasks_of(raw, job.output, job.matte_width) if raw.plates else []
    return any(checks_of(task) is None for task in tasks)


def _has_plates_layout(job: Preparing) -> bool:
    return layout_of(job.root / job.name, job.capture) == "nersemble"


def make_mattes(job: Preparing) -> None:
    """Makes the mattes that lack, and says what was found."""
    if not _has_plates_layout(job):
        print("mattes are made for videos in NeRSemble's layout only: none made here")
        return
    raw = find_raw(job.root, job.name, job.capture)
    tasks = tasks_of(raw, job.output, job.matte_width)
    own = len(raw.videos) - len(tasks)
    if own:
        print(f"{own} of {len(raw.videos)} videos have mattes of your own: kept")
    if not tasks:
        return
    width, height = tasks[0].size
    frames = sum(task.num_frames for task in tasks if checks_of(task) is None)
    check_disk(job.output, "mattes", frames * width * height * _MATTE_BYTES)
    found = matte_capture(tasks, workers=min(job.num_workers, len(tasks)))
    picture = job.output / "preparation" / "mattes.png"
    draw_mattes(tasks, picture)
    count = sum(len(checks) for checks in found.values())
    print(f"{count} mattes in {len(tasks)} videos: {job.output}; look at {picture}")
    for (sequence, camera), checks in sorted(found.items()):
        for frame_id, why in wrong_frames(checks).items():
            print(f"LOOKS WRONG  {sequence} camera {camera} frame {frame_id}: {why}")


def make_missing_clouds(
    job: Preparing, lacking: Sequence[Timestep] | None = None
) -> None:
    """Makes the clouds that lack, and says what was found.

    Args:
      job: what is prepared.
      lacking: the frames; None for all that have none.
    """
    width = min(STEREO_WIDTH, widest(job.root / job.name, job.capture))
    capture = job.open(decode=False, width=width)
    if lacking is None:
        lacking = [t for t in capture.timesteps if not capture.has_points(t)]
    own = len(capture.timesteps) - len(lacking)
    if own:
        print(f"{own} of {len(capture.timesteps)} frames have clouds: kept")
    if not lacking:
        return
    check_disk(job.output, "clouds", len(lacking) * job.points * _POINT_BYTES)
    found = make_clouds(
        job.open(decode=True, width=width),
        job.output,
        lacking,
        num_points=job.points,
        workers=job.num_workers,
    )
    mean = sum(c.seconds for c in found.values()) / max(len(found), 1)
    print(f"{len(found)} clouds, {mean:.1f} s a frame: {job.output}")
    for timestep, why in wrong_clouds(found).items():
        print(f"LOOKS WRONG  {timestep.sequence} frame {timestep.frame_id}: {why}")


def make_missing_codes(job: Preparing) -> None:
    """Tracks the head in the sequences that have no codes of ours yet."""
    sequences = tuple(
        dict.fromkeys(t.sequence for t in job.open(decode=False).timesteps)
    )
    tracking = track_subject(
        job.root,
        job.name,
        dataclasses.replace(job.capture, driving=""),
        prior=job.prior,
        output=job.codes,
        sequences=sequences,
    )
    if tracking is not None:
        print(summary(tracking.fits, tracking.without_cloud))


def lacks_labels(job: Preparing, capture: Capture) -> bool:
    """Whether a capture is tracked by our head model and lacks label maps of it."""
    # Codes of ours name their model so.
    if not capture.has_mattes or not capture.driving_model.startswith("nphm "):
        return False
    is_ours = capture.driving_model == model_name(open_prior(job.prior))
    return is_ours and bool(files_to_label(capture, job.output))


def make_labels(job: Preparing) -> None:
    """Makes the label maps that lack."""
    cfg = dataclasses.replace(job.capture, driving=job.capture.driving or TRACKED)
    tracked = dataclasses.replace(job, capture=cfg)
    capture = tracked.open(decode=False, need_driving=True)
    lacking = files_to_label(capture, job.output)
    if not lacking:
        return
    maps = sum(len(capture.map_frames(s)) * len(c) for s, c in lacking.items())
    size = capture.width * capture.height
    check_disk(job.output, "label maps", maps * size * _MAP_BYTES)
    count = label_capture(
        tracked.open(decode=True, need_driving=True), open_prior(job.prior), job.output
    )
    print(
        f"{count} files of label maps: {job.output}; look at {sheet_path(job.output)}"
    )


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
