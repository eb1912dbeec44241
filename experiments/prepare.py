"""Prepares a raw capture: `python experiments/prepare.py --subject 074`."""

import dataclasses
from pathlib import Path
from typing import Literal

from npga_jax.app import cli
from npga_jax.core import InputError, check_writable, runtime
from npga_jax.data import CaptureConfig, locate_subject

_LEAST_WIDTH = 16
_STEPS = ("mattes", "landmarks", "clouds", "codes", "labels")


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """Make mattes (of clean plates, if any), clouds (by stereo), codes, label maps.

    With a model of faces, also landmarks, from which the head is found.
    """

    subject: str
    """Folder of the subject."""
    data_root: Path | None = None
    """Folder that holds the subjects; default: $NPGA_DATA."""
    output: Path | None = None
    """Data root of the prepared capture, where raw files appear as links; default: the
    cache, where training finds what was made of this capture."""
    steps: tuple[Literal["mattes", "landmarks", "clouds", "codes", "labels"], ...] = (
        _STEPS
    )
    """What to make; what is there already is kept. Landmarks: with a model only."""
    landmarks: Path | None = None
    """MediaPipe's face_landmarker.task, by which landmarks are found; needs
    `pip install "mediapipe>=1.2"`."""
    prior: Path | None = None
    """Head model: .npz, or MonoNPHM's checkpoint; default: the packaged one."""
    width: int = 550
    """Width of the mattes in pixels, at most that of the videos."""
    points: int = 20_000
    """Points of a cloud, about."""
    workers: int = 0
    """Processes, or threads; 0: one per core."""
    capture: CaptureConfig = CaptureConfig()


def main(cfg: PrepareConfig) -> None:
    for name, value, least in (
        ("width", cfg.width, _LEAST_WIDTH),
        ("points", cfg.points, 1000),
        ("workers", cfg.workers, 0),
        ("capture.width", cfg.capture.width, 1),
    ):
        if value < least:
            raise InputError(f"--{name} {value}: expected at least {least}.")
    if not cfg.steps:
        raise InputError(f"--steps names none; expected some of {', '.join(_STEPS)}.")
    if cfg.landmarks and "landmarks" not in cfg.steps:
        raise InputError(
            f"--landmarks {cfg.landmarks} does nothing, since --steps leaves landmarks "
            "out. Add them there, or leave --landmarks out."
        )
    if not cfg.landmarks and "landmarks" in cfg.steps and cfg.steps != _STEPS:
        raise InputError(
            "--steps landmarks needs MediaPipe's face landmarker: give it as "
            "--landmarks face_landmarker.task."
        )
    runtime.configure()
    from npga_jax.app import (
        in_cache,
        make_labels,
        make_landmarks,
        make_mattes,
        make_missing_clouds,
        make_missing_codes,
    )
    from npga_jax.tracking import check_model

    if cfg.landmarks:
        check_model(cfg.landmarks)
    root, subject = locate_subject(cfg.subject, cfg.data_root)
    job = in_cache(
        root,
        subject,
        cfg.capture,
        prior=cfg.prior,
        matte_width=cfg.width,
        points=cfg.points,
        workers=cfg.workers,
    )
    if cfg.output:
        job = linked(job, cfg.output)
    check_writable(job.output)
    if "mattes" in cfg.steps:
        make_mattes(job)
    if cfg.landmarks:
        make_landmarks(job, cfg.landmarks)
    if "clouds" in cfg.steps:
        make_missing_clouds(job)
    if "codes" in cfg.steps:
        make_missing_codes(job)
    if "labels" in cfg.steps:
        make_labels(job)


def linked(job, output: Path):
    """The same job in a folder of its own, with links to what was handed out."""
    from npga_jax.preparation import find_raw, link_raw, write_report

    folder = output / job.name
    if not job.has_raw_layout:
        raise InputError(
            f"--output {output}: links are made of captures in NeRSemble's layout "
            "only. Leave it out: results then go to the cache."
        )
    check_writable(folder)
    if folder.resolve() == (job.root / job.name).resolve():
        raise InputError(
            f"--output {output} is where the capture itself lies. Leave it out: "
            "results go to the cache then, where training finds them; or choose "
            "another folder."
        )
    moved = link_raw(find_raw(job.root, job.name, job.capture), folder)
    if moved:
        print(
            f"{len(moved)} files of your own take the place of those in {folder}, "
            f"which are kept, like {moved[0]}"
        )
        write_report(folder)
    return dataclasses.replace(
        job, root=output, output=folder, codes=folder / "sequences"
    )


if __name__ == "__main__":
    cli.run(main, PrepareConfig)
