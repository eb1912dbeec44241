"""Mattes of a whole capture without clean plates, and its clouds in the same pass."""

import concurrent.futures
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npga_jax.core import InputError, Progress
from npga_jax.data import Camera, Capture, Timestep, is_multiple, resize
from npga_jax.preparation.cloud_records import CloudCheck, draw_clouds
from npga_jax.preparation.clouds import keep_cloud
from npga_jax.preparation.fusion import Cloud, fuse
from npga_jax.preparation.mattes import count_people, matte_of_outline
from npga_jax.preparation.matting import (
    FrameCheck,
    MatteTask,
    area_of,
    checks_of,
    each_frame,
    keep_mattes,
    over_checker,
)
from npga_jax.preparation.outlines import outlines_of
from npga_jax.preparation.stereo import GRID, View, depth_maps


class Outlined(NamedTuple):
    """What was found without plates."""

    mattes: dict[tuple[str, str], list[FrameCheck]]  # by sequence and camera
    clouds: dict[Timestep, CloudCheck]  # only those that were made now


def outline_capture(
    capture: Capture,
    tasks: Sequence[MatteTask],
    output: Path,
    *,
    width: int,
    num_points: int,
    workers: int,
    progress: bool = True,
) -> Outlined:
    """Makes the mattes that are not there yet, sequence by sequence, and clouds.

    A sequence's mattes appear when its last frame is done; clouds of the user's own
    are kept.

    Args:
      capture: the same videos, opened without mattes, in the mattes' width, with all
        frames that the tasks want.
      tasks: videos; what an earlier call finished is not made again.
      output: folder of the prepared subject.
      width: of the images that are compared, pixels.
      num_points: of a cloud, about.
      workers: threads.
      progress: whether to say on stderr how far it is.

    Raises:
      InputError: nobody is found in a whole sequence, or a file cannot be written. What
        was finished before stays.
    """
    found = {(t.sequence, t.camera): checks_of(t) for t in tasks}
    waiting: dict[str, dict[str, MatteTask]] = {}
    for task in tasks:
        if found[task.sequence, task.camera] is None:
            waiting.setdefault(task.sequence, {})[task.camera] = task
    strides = {task.sequence: task.strides for task in tasks}
    wanted = [
        t for t in capture.timesteps if is_multiple(t.frame_id, strides[t.sequence])
    ]
    total = len(wanted)
    done = sum(t.sequence not in waiting for t in wanted)
    clouds: dict[Timestep, CloudCheck] = {}
    with Progress("outlines", total, unit="frames", start=done, show=progress) as say:
        for sequence, by_camera in waiting.items():
            frames = [t for t in wanted if t.sequence == sequence]
            roll = _Roll(by_camera, shown=frames[len(frames) // 2])
            for timestep in frames:
                began = time.monotonic()
                views = _views_of(capture, timestep, width)
                mattes, cloud = _look(
                    capture, timestep, views, by_camera, num_points, workers
                )
                roll.add(timestep, mattes)
                if not capture.has_points(timestep):
                    check = CloudCheck(len(cloud.xyz), time.monotonic() - began)
                    keep_cloud(capture, output, timestep, views, cloud, check)
                    clouds[timestep] = check
                done += 1
                say(done, f"{sequence} {len(cloud.xyz):,} points")
            if not roll.shows_anybody:
                raise _nobody(capture, sequence)
            checks = roll.keep(capture)
            found |= {(sequence, camera): c for camera, c in checks.items()}
    draw_clouds(output, capture.sequences)
    return Outlined({k: c for k, c in found.items() if c is not None}, clouds)


def _views_of(capture: Capture, timestep: Timestep, width: int) -> list[View]:
    """What all cameras see at one moment, in a width, without mattes."""
    wide = min(width, capture.width)
    high = round(capture.height * wide / capture.width)
    scale = np.array([wide / capture.width, high / capture.height, 1], np.float32)
    views = []
    for camera_id in capture.cameras:
        image = resize(capture.rgb(timestep, camera_id), "rgb", wide, high)
        camera = capture.camera(timestep, camera_id)
        small = Camera(
            scale[:, None] * camera.K, camera.world2cam, wide, high, camera_id
        )
        views.append(View(image, None, small))
    return views


def _look(
    capture: Capture,
    timestep: Timestep,
    views: Sequence[View],
    tasks: Mapping[str, MatteTask],
    num_points: int,
    workers: int,
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], Cloud]:
    """The images and mattes that lack at one moment, by camera, and the cloud."""
    maps = depth_maps(views, workers=workers)
    outlines = outlines_of(views, maps)
    person = dict(zip(capture.cameras, outlines, strict=True))
    at = slice(GRID // 2, None, GRID)
    inside = [
        m._replace(depth=np.where(outline[at, at], m.depth, 0))
        for m, outline in zip(maps, outlines, strict=True)
    ]
    cloud = fuse(views, inside, num_points)

    def matte(camera_id: str) -> tuple[np.ndarray, np.ndarray]:
        size = tasks[camera_id].size
        image = resize(capture.rgb(timestep, camera_id), "rgb", *size)
        levels = resize(255 * person[camera_id].astype(np.uint8), "alpha", *size)
        return image, matte_of_outline(image, levels > 127)

    with concurrent.futures.ThreadPoolExecutor(max(workers, 1)) as pool:
        return dict(zip(tasks, pool.map(matte, tasks), strict=True)), cloud


class _Roll:
    """The mattes of a sequence's cameras, kept packed until the last frame."""

    def __init__(self, tasks: Mapping[str, MatteTask], shown: Timestep):
        self.tasks = tasks
        self.shown = shown  # in the pictures
        self.packed: dict[str, list[bytes]] = {c: [] for c in tasks}
        self.pictures: dict[str, np.ndarray] = {}
        self.checks: dict[str, list[FrameCheck]] = {c: [] for c in tasks}

    @property
    def shows_anybody(self) -> bool:
        """Whether there is a person in any frame of any camera."""
        return any(c.people for checks in self.checks.values() for c in checks)

    def add(
        self, timestep: Timestep, mattes: Mapping[str, tuple[np.ndarray, np.ndarray]]
    ) -> None:
        """Takes the next frame: image and matte of each camera."""
        for camera_id, (image, alpha) in mattes.items():
            people = count_people(alpha > 127)
            check = FrameCheck(timestep.frame_id, None, None, people, area_of(alpha))
            self.checks[camera_id].append(check)
            self.packed[camera_id].append(zlib.compress(alpha.tobytes(), 1))
            if timestep == self.shown:
                self.pictures[camera_id] = over_checker(image, alpha)

    def keep(self, capture: Capture) -> dict[str, list[FrameCheck]]:
        """Writes all cameras' videos and records; returns the checks by camera."""
        for camera_id, task in self.tasks.items():
            num_frames = len(capture.map_frames(task.sequence))
            checks, picture = self.checks[camera_id], self.pictures[camera_id]
            frames = each_frame(task, self.packed[camera_id], checks, num_frames)
            keep_mattes(task, frames, checks, picture)
        return self.checks


def _nobody(capture: Capture, sequence: str) -> InputError:
    return InputError(
        f"there are no clean plates, and in {sequence} of {capture.subject} stereo "
        "finds nobody where the cameras look. Expected a head there, seen by 3 cameras "
        "or more. See what experiments/check_data.py says of the calibration, supply "
        "plates or alpha_maps, or train with --capture.no-mattes."
    )
