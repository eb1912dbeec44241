"""Point clouds of a whole capture by stereo: a file per frame, resumable."""

import hashlib
import json
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from npga_jax.core import InputError, Progress
from npga_jax.data import Capture, Kind, Timestep, find_sources, write_pcd
from npga_jax.preparation.cloud_records import (
    CloudCheck,
    draw_clouds,
    keep_check,
    keep_picture,
    read_checks,
)
from npga_jax.preparation.fusion import Cloud, fuse
from npga_jax.preparation.raw import CLOUDS, FEWEST_CAMERAS
from npga_jax.preparation.records import calibration_digest, stamps
from npga_jax.preparation.stereo import View, depth_maps

_VERSION = 1
"""Of the method; frames in which another found too few points are tried again."""
_FEWEST_POINTS = 500
_USUAL_SHARE = 0.5
"""Of the median number of points; fewer look wrong."""
_Frame = TypeVar("_Frame")


def frames_without_clouds(
    capture: Capture, output: Path, sequences: Collection[str]
) -> list[Timestep]:
    """The frames without clouds, of those sequences that have none but ours.

    Args:
      capture: as opened.
      output: folder of the prepared subject.
      sequences: which to look at.
    """
    lacking: list[Timestep] = []
    for sequence in sequences:
        frames = [t for t in capture.timesteps if t.sequence == sequence]
        there = [t for t in frames if capture.has_points(t)]
        if all(_path_of(output, t).exists() for t in there):
            lacking += [t for t in frames if t not in there]
    return lacking


def tried_before(
    capture: Capture, output: Path, timesteps: Sequence[Timestep], num_points: int
) -> dict[Timestep, CloudCheck]:
    """Frames in which too few points were found, of just what there is now.

    Args:
      capture: as `make_clouds` takes it.
      output: folder of the prepared subject.
      timesteps: frames without clouds.
      num_points: of a frame, about.

    Returns:
      What was found in them.
    """
    checks = read_checks(output)
    made_of = _made_of(capture, output, timesteps, num_points)
    found = {t: checks.get((t.sequence, t.frame_id)) for t in timesteps}
    return {
        t: check
        for t, check in found.items()
        if check is not None
        and check.num_points < _FEWEST_POINTS
        and check.made_of == made_of[t.sequence]
    }


def _made_of(
    capture: Capture, output: Path, timesteps: Sequence[Timestep], num_points: int
) -> dict[str, str]:
    """By sequence, what changes with all that decides how many points are found."""
    firsts = {t.sequence: t for t in reversed(timesteps)}
    return {s: _digest(capture, output, t, num_points) for s, t in firsts.items()}


def _digest(capture: Capture, output: Path, timestep: Timestep, num_points: int) -> str:
    decides: dict[str, Any] = {
        "version": _VERSION,
        "points": [num_points, _FEWEST_POINTS],
        "size": [capture.width, capture.height],
        "cameras": capture.cameras,
        "calibration": calibration_digest(capture, timestep),
    }
    kinds: tuple[Kind, ...] = ("rgb", "alpha")
    for kind in kinds:
        sources = find_sources(capture.root, timestep.sequence, kind, output)
        used = {c: path for c, path in sources.items() if c in capture.cameras}
        decides[kind] = stamps(used)
    colors = capture.root / "calibration" / "color_calibration.json"
    decides["colors"] = stamps({"file": colors} if colors.exists() else {})
    text = json.dumps(decides, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_clouds(
    capture: Capture,
    output: Path,
    timesteps: Sequence[Timestep],
    *,
    num_points: int,
    workers: int,
    progress: bool = True,
) -> dict[Timestep, CloudCheck]:
    """Makes the clouds of some frames.

    Args:
      capture: with mattes; its images are used as they were opened.
      output: folder of the prepared subject.
      timesteps: the frames.
      num_points: of a frame, about.
      workers: threads.
      progress: whether to say on stderr how far it is.

    Returns:
      What was found in the frames that were made. Where nothing was found there is no
      file.

    Raises:
      InputError: there are no mattes, or too few cameras, or a file cannot be written.
    """
    if timesteps and not capture.has_mattes:
        raise InputError(
            f"clouds of {capture.subject} need mattes (alpha_maps), which say where "
            "the head is. Make them first: leave out --steps."
        )
    if timesteps and len(capture.cameras) < FEWEST_CAMERAS:
        raise InputError(
            f"clouds need {FEWEST_CAMERAS} cameras or more; {capture.subject} has "
            f"{len(capture.cameras)}. Supply pointclouds/frame_NUMBER.pcd instead."
        )
    total = len(capture.timesteps)
    done = total - len(timesteps)
    found: dict[Timestep, CloudCheck] = {}
    made_of = _made_of(capture, output, timesteps, num_points)
    with Progress("clouds", total, unit="frames", start=done, show=progress) as say:
        for timestep in timesteps:
            began = time.monotonic()
            views = views_of(capture, timestep)
            cloud = fuse(views, depth_maps(views, workers=workers), num_points)
            seconds = time.monotonic() - began
            check = CloudCheck(len(cloud.xyz), seconds, made_of[timestep.sequence])
            keep_cloud(capture, output, timestep, views, cloud, check)
            found[timestep] = check
            done += 1
            say(done, f"{timestep.sequence} {len(cloud.xyz):,} points")
    draw_clouds(output, capture.sequences)
    return found


def keep_cloud(
    capture: Capture,
    output: Path,
    timestep: Timestep,
    views: Sequence[View],
    cloud: Cloud,
    check: CloudCheck,
) -> None:
    """Writes the cloud of a frame, if it has enough points, and what was found.

    Args:
      capture: as opened.
      output: folder of the prepared subject.
      timestep: the frame.
      views: what the cameras see then.
      cloud: what was found in them.
      check: of it.

    Raises:
      InputError: a file cannot be written.
    """
    if len(cloud.xyz) >= _FEWEST_POINTS:
        write_pcd(_path_of(output, timestep), cloud.xyz, cloud.rgb, cloud.normals)
    frames = [t for t in capture.timesteps if t.sequence == timestep.sequence]
    if timestep == frames[len(frames) // 2]:
        keep_picture(output, timestep.sequence, views, cloud)
    keep_check(output, timestep, check)


def _path_of(output: Path, timestep: Timestep) -> Path:
    folder = output / "sequences" / timestep.sequence / CLOUDS
    return folder / f"frame_{timestep.frame_id:05d}.pcd"


def views_of(capture: Capture, timestep: Timestep) -> list[View]:
    """What all cameras see at one moment; those without a matte see nobody."""
    views = []
    for camera_id in capture.cameras:
        matte = capture.alpha(timestep, camera_id)
        image = capture.rgb(timestep, camera_id)
        if matte is None:
            matte = np.zeros(image.shape[:2], np.uint8)
        views.append(View(image, matte, capture.camera(timestep, camera_id)))
    return views


def wrong_clouds(found: Mapping[_Frame, CloudCheck]) -> dict[_Frame, str]:
    """Frames whose clouds look wrong, and why."""
    usual = float(np.median([c.num_points for c in found.values()])) if found else 0.0
    wrong = {}
    for timestep, check in found.items():
        if check.num_points < _FEWEST_POINTS:
            wrong[timestep] = f"{check.num_points} points that views agree on: no cloud"
        elif check.num_points < _USUAL_SHARE * usual:
            wrong[timestep] = f"{check.num_points:,} points, usually {usual:,.0f}"
    return wrong
