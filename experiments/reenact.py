"""Drives an avatar by another person's codes, beside that person's video.

python experiments/reenact.py --run RUN --driver-subject 104 --sequence FREE
python experiments/reenact.py --run RUN --driving codes.npz
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from shots import (
    Shot,
    check_sizes,
    choose_camera,
    driver_name,
    load_codes,
    render_shots,
    shot_of_timestep,
)

from npga_jax.app import cli
from npga_jax.core import InputError, check_writable, runtime
from npga_jax.data import CaptureConfig

_SHEET_COLUMNS = 6


@dataclasses.dataclass(frozen=True)
class ReenactConfig:
    """Drive an avatar; give --driver-subject, --driving, or both."""

    run: Path
    """Run folder that experiments/train.py has written."""
    driver_subject: str = ""
    """Subject whose sequence drives the avatar, and is shown beside it."""
    sequence: str = "FREE"
    """Which sequence of the driver, by name or prefix."""
    driving: Path | None = None
    """Driving file (.npz) with codes of the model trained on; default: those of the
    driver's sequence that the run itself would use."""
    data_root: Path | None = None
    """Folder that holds the subjects; default: the one of the training."""
    pose: Literal["fixed", "target", "driver"] = "fixed"
    """Head pose. fixed: the first one of the avatar's held-out sequence; target: those
    of that sequence, to and fro; driver: the fixed one, moved as the driver moves."""
    neutral: bool = False
    """Add the driver's change from the driver's most neutral frame to the avatar's most
    neutral code, instead of taking codes as they are."""
    smooth: float = 0.0
    """Weight of earlier codes in exponential smoothing, from 0 to below 1."""
    camera: str | None = None
    """Camera of the avatar's capture to look from; default: the held-out one."""
    output: Path | None = None
    """The .mp4 file; default: in the run folder, named after the driver. A sheet of
    stills goes beside it, as .png."""
    width: int | None = None
    """Width of the avatar in pixels; default: that of the training."""
    fps: float | None = None
    """Frames a second; default: the driver's, else the training's."""
    cache_dir: Path | None = None
    """Where tracked codes are looked for beside the capture; default: $NPGA_CACHE,
    else ~/.cache/npga_jax."""


class Driver(NamedTuple):
    """Who drives."""

    name: str
    codes: Any  # DrivingFile
    pictures: tuple[Any, str, dict[int, Any]] | None
    """Capture, camera and timesteps by frame_id; None without a capture."""


def main(cfg: ReenactConfig) -> None:
    check_options(cfg)
    runtime.configure()
    from npga_jax.evaluation import spread, write_sheet
    from npga_jax.io import write_video
    from npga_jax.training import load_run

    run = load_run(cfg.run, data_root=cfg.data_root)
    camera = choose_camera(run, cfg.camera)
    driver = open_driver(cfg, run)
    output = cfg.output or cfg.run / "renders" / f"reenact_{driver.name}.mp4"
    check_writable(output.parent)
    shots = plan_shots(cfg, run, camera, driver.codes)
    fps = cfg.fps or (driver.pictures[0] if driver.pictures else run.capture).fps
    kept = spread(_SHEET_COLUMNS, len(shots))
    stills: list[tuple[np.ndarray, ...]] = []

    def frames() -> Iterator[np.ndarray]:
        for i, avatar in enumerate(render_shots(run, shots, width=cfg.width)):
            frame_id = int(driver.codes.frame_id[i])
            images = (*driver_picture(driver, frame_id, avatar.shape), avatar)
            if i in kept:
                stills.append(images)
            yield beside(images, driver.name, run.config.subject, frame_id)

    count = write_video(output, frames(), fps)
    titles = [f"avatar of {run.config.subject}"]
    if driver.pictures:
        titles = [f"driver: {driver.name}", *titles]
    rows = list(zip(titles, zip(*stills, strict=True), strict=True))
    sheet = output.with_suffix(".png")
    write_sheet(sheet, rows, columns=len(stills))
    print(f"wrote {output}: {count} frames; stills in {sheet}")


def check_options(cfg: ReenactConfig) -> None:
    """Refuses what cannot be meant."""
    if cfg.driving is None and not cfg.driver_subject:
        raise InputError(
            "nobody drives: give --driver-subject SUBJECT, or --driving FILE."
        )
    if not 0 <= cfg.smooth < 1:
        raise InputError(f"--smooth is {cfg.smooth}; give 0 or more, below 1.")
    check_sizes(cfg.output, cfg.width, cfg.fps)


def open_driver(cfg: ReenactConfig, run: Any) -> Driver:
    """The codes that drive, and the video that they are of where it is known."""
    if not cfg.driver_subject:
        codes = load_codes(cfg.driving, run)
        return Driver(driver_name(cfg.driving), codes, None)
    from npga_jax.data import find_sequence, list_driving_files, locate_subject

    data_root = cfg.data_root or run.config.data_root
    root, subject = locate_subject(cfg.driver_subject, data_root)
    folder = root / subject
    names = sorted(p.name for p in (folder / "sequences").glob("*") if p.is_dir())
    sequence = find_sequence(tuple(names), cfg.sequence)
    path = cfg.driving
    if path is None:
        wanted = run.capture.driving_name
        path = list_driving_files(folder, sequence, cfg.cache_dir).get(wanted)
        if path is None:
            raise InputError(
                f"{sequence} of subject {cfg.driver_subject} has no codes "
                f"{wanted}.npz, which the avatar was trained on; make them with "
                f"experiments/track.py --subject {cfg.driver_subject}, or give a file "
                "with --driving."
            )
    codes = load_codes(path, run)
    capture = open_pictures(root, subject, sequence, run.capture.width, cfg.cache_dir)
    timesteps = {t.frame_id: t for t in capture.timesteps if t.sequence == sequence}
    rows = [i for i, frame in enumerate(codes.frame_id) if int(frame) in timesteps]
    if not rows:
        raise InputError(
            f"{path} has no frame in common with the video of {sequence} of subject "
            f"{cfg.driver_subject}; is it the file of another sequence (--sequence)?"
        )
    codes = dataclasses.replace(
        codes,
        frame_id=codes.frame_id[rows],
        expr=codes.expr[rows],
        world_from_head=codes.world_from_head[rows],
    )
    front = run.config.capture.held_out_camera
    camera = front if front in capture.cameras else capture.cameras[0]
    return Driver(
        f"{cfg.driver_subject}_{sequence}", codes, (capture, camera, timesteps)
    )


def open_pictures(
    root: Path, subject: str, sequence: str, width: int, cache_dir: Path | None
) -> Any:
    """The driver's capture, as wide as the avatar's if its videos are that wide."""
    from npga_jax.data import open_nersemble, probe

    videos = sorted((root / subject / "sequences" / sequence / "images").glob("*.mp4"))
    if videos:
        width = min(width, probe(videos[0], "rgb").width)
    cfg = CaptureConfig(width=width, cache_dir=cache_dir)
    return open_nersemble(
        root, subject, cfg, progress=False, decode=False, need_driving=False
    )


def plan_shots(cfg: ReenactConfig, run: Any, camera: str, codes: Any) -> list[Shot]:
    """Codes and poses of all frames, seen by one camera."""
    from npga_jax.app import (
        follow_motion,
        relative_codes,
        smooth_codes,
        there_and_back,
    )
    from npga_jax.core import most_neutral_row
    from npga_jax.data import expression_codes

    expr = codes.expr
    if cfg.neutral:
        own = expression_codes(run.capture, run.split.train)
        expr = relative_codes(expr, own[most_neutral_row(own)])
    expr = smooth_codes(expr, cfg.smooth)
    held_out = [v.timestep for v in run.split.self_reenactment]
    reference = shot_of_timestep(run.capture, held_out[0], camera)
    if cfg.pose == "driver":
        poses = follow_motion(reference.world_from_head, codes.world_from_head)
    elif cfg.pose == "target":
        order = there_and_back(len(held_out), len(expr))
        poses = [run.capture.driving(held_out[i]).world_from_head for i in order]
    else:
        poses = [reference.world_from_head] * len(expr)
    return [
        reference._replace(expr=code, world_from_head=pose)
        for code, pose in zip(expr, poses, strict=True)
    ]


def driver_picture(
    driver: Driver, frame_id: int, shape: tuple[int, ...]
) -> tuple[np.ndarray, ...]:
    """The driver's video at a frame, made to fit [H, W, 3]; empty without a capture."""
    from npga_jax.evaluation import fit_into, ground_truth, to_uint8

    if driver.pictures is None:
        return ()
    capture, camera, timesteps = driver.pictures
    image = to_uint8(ground_truth(capture, timesteps[frame_id], camera))
    return (fit_into(image, width=shape[1], height=shape[0]),)


def beside(
    images: tuple[np.ndarray, ...], driver: str, subject: str, frame_id: int
) -> np.ndarray:
    """Driver and avatar with captions; the avatar alone as it is."""
    from npga_jax.evaluation import captioned_row

    if len(images) == 1:
        return images[0]
    captions = [f"driver: {driver} {frame_id}", f"avatar of {subject}"]
    return captioned_row(images, captions)


if __name__ == "__main__":
    cli.run(main, ReenactConfig)
