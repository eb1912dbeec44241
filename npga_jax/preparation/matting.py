"""Mattes of a whole capture: one video per camera and sequence, resumable."""

import concurrent.futures
import dataclasses
import itertools
import math
import multiprocessing
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from npga_jax.core import Progress
from npga_jax.data import (
    decode,
    find_sources,
    is_multiple,
    read_strides,
    record_path,
    resize,
)
from npga_jax.io import write_video
from npga_jax.preparation.mattes import estimate_matte
from npga_jax.preparation.raw import (
    ALPHA_MAPS,
    RawCapture,
    can_be_outlined,
    check_plates,
    read_plate,
)
from npga_jax.preparation.records import (
    begin_record,
    draw_sheet,
    is_own,
    read_record,
    shrink,
    stamps,
    write_record,
)

KIND = "mattes"
_VERSION = 1
"""Of the method; mattes of another are made again."""
OUTLINE_VERSION = 1
"""Of the method that needs no plate."""
_LEAST_EXPLAINED = 0.25
"""Right plates explain all but the person, here half; others explained a fifth."""
_FARTHEST_EXPOSURE = 0.15
_JUMP = 0.25
"""Of the person's area against the video's median."""


@dataclasses.dataclass(frozen=True)
class MatteTask:
    """One video of one camera."""

    sequence: str
    camera: str
    source: Path
    plate: Path | None  # None: the matte is of an outline
    output: Path  # of the matte's video
    record: Path
    size: tuple[int, int]  # (W, H) of the matte, both even
    strides: tuple[int, ...]  # Multiples of any get a matte: earlier runs' stay.
    fps: float
    num_frames: int  # as stated


class FrameCheck(NamedTuple):
    """What a frame's matte rests on."""

    frame_id: int
    exposure: float | None  # None without a plate
    explained: float | None  # likewise
    people: int
    area: float  # share of the image


def tasks_of(raw: RawCapture, output: Path, width: int) -> list[MatteTask]:
    """Lists the videos that need mattes; those that have the user's own are left out.

    Where no camera has a plate and no video a matte of the user's, the tasks have no
    plates: `outline_capture` does them.

    Args:
      raw: what was handed out.
      output: folder of the prepared subject.
      width: of the mattes, at most; pixels.

    Raises:
      InputError: a camera that needs a plate has none; or none has, but there are
        too few for outlines.
    """
    wide = min(width, raw.video_size[0]) // 2 * 2
    high = 2 * round(raw.video_size[1] * wide / raw.video_size[0] / 2)
    there = {s: find_sources(raw.folder, s, "alpha") for s in raw.sequences}
    videos = list(itertools.product(raw.sequences, raw.cameras))
    records = {v: record_path(output, KIND, *v) for v in videos}
    made = {(s, c): matte_path(output, s, c) for s, c in videos}
    lacking = [
        (s, c)
        for s, c in videos
        if not is_own(there[s].get(c), made[s, c], records[s, c])
    ]
    is_outlined = can_be_outlined(raw) and len(lacking) == len(videos)
    strides = {
        sequence: _least(raw.stride, [records[v] for v in lacking if v[0] == sequence])
        for sequence in raw.sequences
    }
    tasks = []
    for sequence, camera in lacking:
        if not is_outlined:
            check_plates(raw, camera)
        tasks.append(
            MatteTask(
                sequence=sequence,
                camera=camera,
                source=raw.videos[sequence, camera],
                plate=raw.plates.get(camera),
                output=made[sequence, camera],
                record=records[sequence, camera],
                size=(wide, high),
                strides=strides[sequence],
                fps=raw.fps,
                num_frames=raw.num_frames[sequence, camera],
            )
        )
    return tasks


def _least(stride: int, records: Iterable[Path]) -> tuple[int, ...]:
    """Strides of a run and of earlier ones, without those that others include."""
    found = {stride, *(s for record in records for s in read_strides(record))}
    return tuple(
        s for s in sorted(found) if not is_multiple(s, (o for o in found if o < s))
    )


def matte_path(output: Path, sequence: str, camera: str) -> Path:
    """Where a camera's mattes that were made are."""
    return output / "sequences" / sequence / ALPHA_MAPS / f"cam_{camera}.mp4"


def matte_capture(
    tasks: Sequence[MatteTask], *, workers: int, progress: bool = True
) -> dict[tuple[str, str], list[FrameCheck]]:
    """Makes the mattes that are not there yet.

    Args:
      tasks: videos; what an earlier call finished is not made again.
      workers: processes.
      progress: whether to say on stderr how far it is.

    Returns:
      Per (sequence, camera), what the mattes rest on.

    Raises:
      InputError: a video or a plate cannot be read, or a matte not written. What was
        finished before stays.
    """
    found = {(t.sequence, t.camera): checks_of(t) for t in tasks}
    waiting = [t for t in tasks if found[t.sequence, t.camera] is None]
    done = len(tasks) - len(waiting)
    with Progress(
        "mattes", len(tasks), unit="videos", start=done, show=progress
    ) as say:
        for task, checks in _made(waiting, workers):
            found[task.sequence, task.camera] = checks
            done += 1
            say(done, f"{task.sequence} {task.camera}")
    return {key: checks for key, checks in found.items() if checks is not None}


def _made(
    tasks: Sequence[MatteTask], workers: int
) -> Iterator[tuple[MatteTask, list[FrameCheck]]]:
    """Makes videos one after the other, or by several processes; in any order."""
    if workers < 2:
        for task in tasks:
            yield task, matte_video(task)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
        running = {pool.submit(matte_video, task): task for task in tasks}
        try:
            for future in concurrent.futures.as_completed(running):
                yield running[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def matte_video(task: MatteTask) -> list[FrameCheck]:
    """Makes one video of mattes, its record and a picture.

    Raises:
      InputError: the video or the plate cannot be read, or the matte not written.
      ValueError: there is no plate.
    """
    if task.plate is None:
        raise ValueError(f"{task.source} has no plate.")
    width, height = task.size
    plate = resize(read_plate(task.plate, task.source), "rgb", width, height)
    # A minute of mattes is more than memory should hold: they are packed.
    packed: list[bytes] = []
    checks: list[FrameCheck] = []
    wanted = [f for f in range(task.num_frames) if is_multiple(f, task.strides)]
    shown = wanted[len(wanted) // 2] if wanted else 0
    pictures: list[np.ndarray] = []
    step = math.gcd(*task.strides)
    numbers = itertools.count(step=step)

    def add(frame: np.ndarray) -> None:
        frame_id = next(numbers)
        if not is_multiple(frame_id, task.strides):
            return
        image = resize(frame, "rgb", width, height)
        matte = estimate_matte(image, plate)
        if frame_id in (0, shown):
            pictures.append(over_checker(image, matte.alpha))
        checks.append(
            FrameCheck(
                frame_id,
                round(matte.exposure, 4),
                round(matte.explained, 4),
                matte.people,
                area_of(matte.alpha),
            )
        )
        packed.append(zlib.compress(matte.alpha.tobytes(), 1))

    contents = decode(task.source, "rgb", step, add)
    frames = each_frame(task, packed, checks, contents.num_frames)
    keep_mattes(task, frames, checks, pictures[-1])
    return checks


def each_frame(
    task: MatteTask,
    packed: Sequence[bytes],
    checks: Sequence[FrameCheck],
    num_frames: int,
) -> Iterator[np.ndarray]:
    """The matte [H, W] of each frame of the video: its own, or the one before.

    Args:
      task: the video.
      packed: its mattes, by zlib.
      checks: of them; they say which frames they are of.
      num_frames: of the video.
    """
    own = [check.frame_id for check in checks]
    at = np.searchsorted(own, np.arange(num_frames), side="right") - 1
    for i in np.maximum(at, 0):
        levels = np.frombuffer(zlib.decompress(packed[i]), np.uint8)
        yield levels.reshape(task.size[::-1])


def area_of(alpha: np.ndarray) -> float:
    """Share of the image that a matte [H, W] uint8 covers."""
    return round(float(alpha.mean()) / 255, 4)


def keep_mattes(
    task: MatteTask,
    mattes: Iterable[np.ndarray],
    checks: Sequence[FrameCheck],
    picture: np.ndarray,
) -> None:
    """Writes one video of mattes, its record and a picture.

    Args:
      task: the video.
      mattes: [H, W] uint8 of each of its frames, consumed one by one. Frames that are
        skipped hold the matte before them, so that frames keep their numbers.
      checks: of the frames that are not skipped.
      picture: [h, w, 3] uint8, of one of them.

    Raises:
      InputError: a file cannot be written.
    """
    begin_record(task.record, _made_of(task))
    frames = (np.repeat(alpha[..., None], 3, axis=-1) for alpha in mattes)
    write_video(task.output, frames, task.fps)
    write_record(task.record, _made_of(task), [c._asdict() for c in checks], picture)


def checks_of(task: MatteTask) -> list[FrameCheck] | None:
    """What an earlier run found in a video; None if it is to be made (again)."""
    found = read_record(task.record, _made_of(task), task.output)
    try:
        return None if found is None else [FrameCheck(**frame) for frame in found]
    except TypeError:
        return None


def wrong_frames(checks: Sequence[FrameCheck]) -> dict[int, str]:
    """Frames of one video whose matte looks wrong, and why."""
    areas = [c.area for c in checks if c.people]
    usual = float(np.median(areas)) if areas else 0.0
    wrong = {}
    for check in checks:
        if not check.people:
            wrong[check.frame_id] = (
                "stereo finds nobody"
                if check.explained is None
                else "nobody is seen before the plate"
            )
        elif check.explained is not None and check.explained < _LEAST_EXPLAINED:
            wrong[check.frame_id] = (
                f"the plate explains {check.explained:.0%} of the image: another "
                "camera's, or camera or lights moved"
            )
        elif (
            check.exposure is not None and abs(check.exposure - 1) > _FARTHEST_EXPOSURE
        ):
            wrong[check.frame_id] = f"{check.exposure:.2f} times as bright as its plate"
        elif check.people > 1:
            wrong[check.frame_id] = f"{check.people} things that do not touch"
        elif abs(check.area - usual) > _JUMP * usual:
            wrong[check.frame_id] = (
                f"covers {check.area:.0%} of the image, usually {usual:.0%}"
            )
    return wrong


def draw_mattes(tasks: Sequence[MatteTask], path: Path) -> None:
    """Writes the middle frames of all videos over a checker: a row per sequence."""
    rows: dict[str, list[Path]] = {}
    for task in tasks:
        rows.setdefault(task.sequence, []).append(task.record)
    draw_sheet(rows, path)


def _made_of(task: MatteTask) -> dict[str, Any]:
    """What decides how a video of mattes looks."""
    files = {"source": task.source}
    if task.plate:
        files["plate"] = task.plate
    one, *more = task.strides
    return {
        "version": _VERSION,
        "size": list(task.size),
        "stride": [one, *more] if more else one,
        **stamps(files),
        **({} if task.plate else {"outline": OUTLINE_VERSION}),
    }


def over_checker(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The person before a checker board, small: [h, w, 3] uint8."""
    small, matte = shrink(image), shrink(alpha)
    rows, columns = np.indices(small.shape[:2]) // 8
    board = np.where((rows + columns) % 2, 225, 90)[..., None]
    share = matte[..., None] / 255
    return np.round(share * small + (1 - share) * board).astype(np.uint8)
