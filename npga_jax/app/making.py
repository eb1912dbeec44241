"""The steps that make what a raw capture lacks, and say what was found."""

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence

from npga_jax.app.job import Preparing, check_disk
from npga_jax.data import PREPARATION, TRACKED, Timestep, widest
from npga_jax.preparation import (
    CloudCheck,
    FrameCheck,
    MatteTask,
    checks_of,
    clouds_sheet,
    draw_mattes,
    files_to_label,
    label_capture,
    make_clouds,
    matte_capture,
    outline_capture,
    sheet_path,
    tasks_of,
    tried_before,
    write_report,
    wrong_clouds,
    wrong_frames,
)
from npga_jax.tracking import open_prior, summary, track_subject

STEREO_WIDTH = 275
"""Of the images that clouds are made from: finer ones gave no better points."""
_MATTE_BYTES = 0.06
"""Of a matte's pixel, in its video; measured, doubled."""
_POINT_BYTES = 30
_MAP_BYTES = 0.05
"""Of a label map's pixel, packed; measured, doubled."""


def make_mattes(job: Preparing) -> None:
    """Makes the mattes that lack, and says what was found.

    Without any clean plate they are of outlines, and clouds come out of the same pass.
    """
    if not job.has_raw_layout:
        print("mattes are made for videos in NeRSemble's layout only: none made here")
        return
    raw = job.raw()
    for note in raw.notes:
        print(f"note: {note}", file=sys.stderr)
    tasks = tasks_of(raw, job.output, job.matte_width)
    own = len(raw.videos) - len(tasks)
    if own:
        print(f"{own} of {len(raw.videos)} videos have mattes of your own: kept")
    if not tasks:
        return
    width, height = tasks[0].size
    frames = sum(task.num_frames for task in tasks if checks_of(task) is None)
    check_disk(job.output, "mattes", frames * width * height * _MATTE_BYTES)
    if tasks[0].plate is None:
        found = _outline(job, tasks)
    else:
        found = matte_capture(tasks, workers=min(job.num_workers, len(tasks)))
    picture = job.output / PREPARATION / "mattes.png"
    draw_mattes(tasks, picture)
    count = sum(len(checks) for checks in found.values())
    print(f"{count} mattes in {len(tasks)} videos: {job.output}; look at {picture}")
    for (sequence, camera), checks in sorted(found.items()):
        for frame_id, why in wrong_frames(checks).items():
            print(f"LOOKS WRONG  {sequence} camera {camera} frame {frame_id}: {why}")
    write_report(job.output)


def _outline(
    job: Preparing, tasks: Sequence[MatteTask]
) -> Mapping[tuple[str, str], list[FrameCheck]]:
    """Makes mattes without plates, and clouds."""
    print(
        "no clean plates: mattes are the outline of what stereo finds; hair and rims "
        "are rough"
    )
    step = math.gcd(*(stride for task in tasks for stride in task.strides))
    bare = dataclasses.replace(
        job,
        capture=dataclasses.replace(job.capture, mattes=False, frame_stride=step),
    )
    lacking = any(checks_of(task) is None for task in tasks)
    found = outline_capture(
        bare.open(decode=lacking, width=tasks[0].size[0]),
        tasks,
        job.output,
        width=STEREO_WIDTH,
        num_points=job.points,
        workers=job.num_workers,
    )
    if found.clouds:
        _say_clouds(job, found.clouds)
    return found.mattes


def make_missing_clouds(
    job: Preparing, lacking: Sequence[Timestep] | None = None
) -> None:
    """Makes the clouds that lack, and says what was found.

    Frames in which too few points were found before are not tried again, but named.

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
    tried = tried_before(capture, job.output, lacking, job.points)
    if tried:
        print(
            f"{len(tried)} frames are left out: too few points were found in them "
            "before. Other settings, mattes or videos try them again"
        )
        _name_wrong_clouds(tried)
    lacking = [t for t in lacking if t not in tried]
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
    _say_clouds(job, found)
    write_report(job.output)


def _say_clouds(job: Preparing, found: Mapping[Timestep, CloudCheck]) -> None:
    mean = sum(c.seconds for c in found.values()) / max(len(found), 1)
    print(
        f"{len(found)} clouds, {mean:.1f} s a frame: {job.output}; look at "
        f"{clouds_sheet(job.output)}"
    )
    _name_wrong_clouds(found)


def _name_wrong_clouds(found: Mapping[Timestep, CloudCheck]) -> None:
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
    write_report(job.output)
