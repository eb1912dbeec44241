"""Drives an avatar by another person's codes, beside that person's video.

python experiments/reenact.py --run RUN --driver-subject 104 --sequence FREE
python experiments/reenact.py --run RUN --driving codes.npz
python experiments/reenact.py --run RUN --driver-video talk.mp4 --landmarks MODEL
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from npga_jax.app import cli
from npga_jax.core import InputError, check_writable, runtime
from npga_jax.data import CaptureConfig

_SHEET_COLUMNS = 6


@dataclasses.dataclass(frozen=True)
class ReenactConfig:
    """Drive an avatar; give --driver-subject, --driving, both, or --driver-video."""

    run: Path
    """Run folder that experiments/train.py has written, or its avatar.npz alone."""
    method: Path | None = None
    """The file with the avatar's own method, where avatar.npz asks for it."""
    driver_subject: str = ""
    """Subject whose sequence drives the avatar, and is shown beside it."""
    sequence: str = "FREE"
    """Which sequence of the driver, by name or prefix."""
    driving: Path | None = None
    """Driving file (.npz) with codes of the model trained on; default: those of the
    driver's sequence that the run itself would use."""
    driver_video: Path | None = None
    """A video of a face, by whatever camera, which is tracked first; needs
    --landmarks."""
    landmarks: Path | None = None
    """MediaPipe's face_landmarker.task, for --driver-video; needs `pip install
    "mediapipe>=1.2"`."""
    prior: Path | None = None
    """Head model that the avatar's codes are of, for --driver-video; default: the
    packaged one."""
    data_root: Path | None = None
    """Folder that holds the subjects; default: the one of the training."""
    pose: Literal["fixed", "target", "driver"] = "fixed"
    """Head pose. fixed: that of the avatar at rest (render.py calls it still); target:
    those of the held-out sequence, to and fro; driver: the fixed one, moved as the
    driver moves (there: motion)."""
    neutral: bool = False
    """Add the driver's change from the driver's most neutral frame to the avatar's most
    neutral code, instead of taking codes as they are."""
    smooth: float = 0.0
    """Weight of earlier codes in exponential smoothing, from 0 to below 1."""
    camera: str | None = None
    """Camera of the avatar's capture to look from, which is then opened; default: the
    avatar's own, which is where the held-out camera was."""
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
    picture: Callable[[int], np.ndarray] | None = None
    """The driver at a frame, [H, W, 3] uint8, frames being asked for in their order;
    None where only codes are known."""
    fps: float | None = None


def main(cfg: ReenactConfig) -> None:
    """Opens avatar and driver, renders, writes video and stills."""
    from npga_jax.app import check_sizes, open_avatar, render_shots

    check_options(cfg)
    check_sizes(cfg.output, cfg.width, cfg.fps)
    runtime.configure()
    from npga_jax.evaluation import spread, write_sheet
    from npga_jax.io import write_video

    opened = open_avatar(cfg.run, data_root=cfg.data_root, method=cfg.method)
    avatar, subject = opened.avatar, opened.config.subject
    driver = open_driver(cfg, opened)
    output = cfg.output or opened.folder / "renders" / f"reenact_{driver.name}.mp4"
    check_writable(output.parent)
    shots = plan_shots(cfg, opened, driver.codes)
    fps = cfg.fps or driver.fps or avatar.camera.fps
    kept = spread(_SHEET_COLUMNS, len(shots))
    stills: list[tuple[np.ndarray, ...]] = []

    def frames() -> Iterator[np.ndarray]:
        for i, image in enumerate(render_shots(avatar, shots, width=cfg.width)):
            frame_id = int(driver.codes.frame_id[i])
            images = (*driver_picture(driver, frame_id, image.shape), image)
            if i in kept:
                stills.append(images)
            yield beside(images, driver.name, subject, frame_id)

    count = write_video(output, frames(), fps)
    titles = [f"avatar of {subject}"]
    if driver.picture:
        titles = [f"driver: {driver.name}", *titles]
    rows = list(zip(titles, zip(*stills, strict=True), strict=True))
    sheet = output.with_suffix(".png")
    write_sheet(sheet, rows, columns=len(stills))
    print(f"wrote {output}: {count} frames; stills in {sheet}")


def check_options(cfg: ReenactConfig) -> None:
    """Refuses what cannot be meant."""
    if cfg.driver_video is not None:
        if cfg.driving is not None or cfg.driver_subject:
            raise InputError(
                "two drivers: give --driver-video, or --driver-subject and --driving."
            )
        if cfg.landmarks is None:
            raise InputError(
                "--driver-video is tracked by landmarks of the face: give MediaPipe's "
                "model with --landmarks face_landmarker.task."
            )
    elif cfg.driving is None and not cfg.driver_subject:
        raise InputError(
            "nobody drives: give --driver-subject SUBJECT, --driving FILE, or "
            "--driver-video FILE."
        )
    elif cfg.landmarks is not None or cfg.prior is not None:
        raise InputError(
            "--landmarks and --prior have no effect here: they are for --driver-video. "
            "Leave them out."
        )
    usual = {field.name: field.default for field in dataclasses.fields(cfg)}
    for name in ("sequence", "cache_dir"):
        if not cfg.driver_subject and getattr(cfg, name) != usual[name]:
            raise InputError(
                f"--{name.replace('_', '-')} {getattr(cfg, name)} has no effect here: "
                "it is for --driver-subject. Leave it out."
            )
    if not 0 <= cfg.smooth < 1:
        raise InputError(f"--smooth is {cfg.smooth}; give 0 or more, below 1.")


def open_driver(cfg: ReenactConfig, opened: Any) -> Driver:
    """The codes that drive, and the video that they are of where it is known."""
    from npga_jax.app import check_codes, driver_name, load_codes
    from npga_jax.evaluation import ground_truth, to_uint8

    avatar, config = opened.avatar, opened.config
    if cfg.driver_video is not None:
        return open_video(opened, cfg.driver_video, cfg.landmarks, cfg.prior)
    if cfg.driving is not None and not cfg.driver_subject:
        codes = load_codes(cfg.driving, avatar)
        return Driver(driver_name(cfg.driving), codes)
    from npga_jax.data import (
        find_sequence,
        list_driving_files,
        locate_subject,
        sequence_names,
    )

    data_root = cfg.data_root or config.data_root
    root, subject = locate_subject(cfg.driver_subject, data_root)
    folder = root / subject
    names = sequence_names(folder, CaptureConfig(cache_dir=cfg.cache_dir))
    sequence = find_sequence(names, cfg.sequence)
    wanted = config.capture.driving
    there = list_driving_files(folder, sequence, cfg.cache_dir)
    path = cfg.driving or there.get(wanted)
    pictures = CaptureConfig(width=avatar.camera.width, cache_dir=cfg.cache_dir)
    if path is None:  # Other layouts bring codes that are no files.
        pictures = dataclasses.replace(pictures, driving=wanted)
    capture = open_pictures(root, subject, pictures)
    timesteps = {t.frame_id: t for t in capture.timesteps if t.sequence == sequence}
    if path is not None:
        codes = load_codes(path, avatar)
    else:
        codes = codes_of(capture, list(timesteps.values()))
        if codes is None:
            raise InputError(
                f"{sequence} of subject {cfg.driver_subject} has no codes "
                f"{wanted}.npz, which the avatar was trained on; make them with "
                f"experiments/track.py --subject {cfg.driver_subject}, or give a file "
                "with --driving."
            )
        check_codes(codes, avatar, f"{sequence} of {cfg.driver_subject}")
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
    front = config.capture.held_out_camera
    camera = front if front in capture.cameras else capture.cameras[0]

    def picture(frame_id: int) -> np.ndarray:
        return to_uint8(ground_truth(capture, timesteps[frame_id], camera))

    return Driver(f"{cfg.driver_subject}_{sequence}", codes, picture, capture.fps)


def open_video(
    opened: Any, video: Path, landmarks: Path | None, prior: Path | None
) -> Driver:
    """Tracks a video; its codes stay beside what is rendered."""
    from npga_jax.app import follow_video, load_codes
    from npga_jax.data import probe, read_frames
    from npga_jax.tracking import model_name, open_prior

    assert landmarks is not None  # `check_options` has seen to it.
    loaded = open_prior(prior)
    if opened.avatar.driving_model != model_name(loaded):
        raise InputError(
            f"the avatar is driven by codes of '{opened.avatar.driving_model}', and "
            f"videos are tracked with '{model_name(loaded)}'; give the avatar's head "
            "model with --prior, or train with codes of the packaged one."
        )
    path, _ = follow_video(video, landmarks, loaded, opened.folder / "renders")
    frames = enumerate(read_frames(video, "rgb"))

    def picture(frame_id: int) -> np.ndarray:
        return next(image for moment, image in frames if moment == frame_id)

    fps = probe(video, "rgb").fps or None
    return Driver(video.stem, load_codes(path, opened.avatar), picture, fps)


def open_pictures(root: Path, subject: str, cfg: CaptureConfig) -> Any:
    """The driver's capture, as wide as `cfg` says if its images are that wide."""
    from npga_jax.data import open_located, widest

    width = min(cfg.width, widest(root / subject, cfg))
    cfg = dataclasses.replace(cfg, width=width)
    return open_located(
        root, subject, cfg, progress=False, decode=False, need_driving=False
    )


def codes_of(capture: Any, timesteps: list) -> Any:
    """The codes of a capture's timesteps as a driving file; None if there are none."""
    from npga_jax.data import DrivingFile

    coded = [t for t in timesteps if capture.has_driving(t)]
    if not coded:
        return None
    driving = [capture.driving(t) for t in coded]
    return DrivingFile(
        frame_id=np.array([t.frame_id for t in coded]),
        expr=np.stack([d.expr for d in driving]),
        world_from_head=np.stack([d.world_from_head for d in driving]),
        expr_names=capture.expr_names,
        model=capture.driving_model,
        head_unit="m",
    )


def plan_shots(cfg: ReenactConfig, opened: Any, codes: Any) -> list:
    """Codes and poses of all frames, seen by one camera."""
    from npga_jax.app import (
        follow_motion,
        neutral_shot,
        relative_codes,
        smooth_codes,
        there_and_back,
    )

    expr = codes.expr
    if cfg.neutral:
        expr = relative_codes(expr, opened.avatar.neutral)
    expr = smooth_codes(expr, cfg.smooth)
    reference = neutral_shot(opened, cfg.camera)
    if cfg.pose == "driver":
        poses = follow_motion(reference.world_from_head, codes.world_from_head)
    elif cfg.pose == "target":
        held_out = [v.timestep for v in opened.split.self_reenactment]
        if not held_out:
            raise InputError(
                "--pose target takes the poses of the held-out sequence, and the "
                "avatar's capture has none; give another --pose."
            )
        order = there_and_back(len(held_out), len(expr))
        poses = [opened.capture.driving(held_out[i]).world_from_head for i in order]
    else:
        poses = [reference.world_from_head] * len(expr)
    return [
        reference._replace(expr=code, world_from_head=pose)
        for code, pose in zip(expr, poses, strict=True)
    ]


def driver_picture(
    driver: Driver, frame_id: int, shape: tuple[int, ...]
) -> tuple[np.ndarray, ...]:
    """The driver's video at a frame, made to fit [H, W, 3]; empty without one."""
    from npga_jax.evaluation import fit_into

    if driver.picture is None:
        return ()
    image = driver.picture(frame_id)
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
