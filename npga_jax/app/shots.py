"""Frames of an avatar that are to be rendered: what render.py and reenact.py share."""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from npga_jax.core import InputError


class Shot(NamedTuple):
    """One frame to render."""

    expr: np.ndarray  # [E]
    world_from_head: np.ndarray  # [4, 4]
    viewmat: np.ndarray  # [4, 4]
    K: np.ndarray  # [3, 3]


def shot_of_timestep(capture: Any, timestep: Any, camera_id: str) -> Shot:
    """A frame of the capture itself."""
    driving = capture.driving(timestep)
    camera = capture.camera(timestep, camera_id)
    return Shot(driving.expr, driving.world_from_head, camera.world2cam, camera.K)


def choose_camera(run: Any, camera: str | None) -> str:
    """The camera to look from: the one asked for, else the held-out one, the front."""
    camera = camera or run.config.capture.held_out_camera
    if camera not in run.capture.cameras:
        raise InputError(
            f"there is no camera '{camera}' in this capture; it has "
            f"{', '.join(run.capture.cameras)}."
        )
    return camera


def check_sizes(output: Path | None, width: int | None, fps: float | None) -> None:
    """Refuses a video that cannot be written."""
    if output is not None and output.suffix.lower() != ".mp4":
        raise InputError(f"--output {output} does not end in .mp4.")
    if width is not None and width < 16:
        raise InputError(f"--width is {width}; give 16 or more.")
    if fps is not None and not 0 < fps <= 1000:
        raise InputError(f"--fps is {fps}; give a rate above 0, at most 1000.")


def load_codes(path: Path, run: Any) -> Any:
    """Reads a driving file for a run; warns if its codes are of another model.

    Raises:
      InputError: the file is damaged, or its codes are of another length.
    """
    from npga_jax.data import load_driving

    codes = load_driving(path)
    if codes.expr.shape[1] != run.capture.expr_dim:
        raise InputError(
            f"{path}: codes of length {codes.expr.shape[1]} of model "
            f"'{codes.model}'; this avatar was trained on length "
            f"{run.capture.expr_dim} of model '{run.capture.driving_model}'. Track "
            "driver and person with the same model."
        )
    if codes.model != run.capture.driving_model:
        print(
            f"warning: the codes are of model '{codes.model}', the avatar was trained "
            f"on '{run.capture.driving_model}'",
            file=sys.stderr,
        )
    return codes


def driver_name(path: Path) -> str:
    """The file's name; in a capture, subject and sequence, which say more."""
    folders = path.resolve().parents
    if len(folders) > 3 and folders[0].name == "tracking":
        return f"{folders[3].name}_{folders[1].name}"
    return path.stem


def render_shots(
    run: Any,
    shots: Sequence[Shot],
    *,
    width: int | None = None,
    frames_dir: Path | None = None,
) -> Iterator[np.ndarray]:
    """Yields frames [H, W, 3] uint8, and writes them as .png files if asked to."""
    from npga_jax.evaluation import to_uint8
    from npga_jax.io import write_png

    width = width or run.capture.width
    zoom = width / run.capture.width
    height = max(round(run.capture.height * zoom), 1)
    scale = np.diag([zoom, zoom, 1.0]).astype(np.float32)
    start = time.monotonic()
    for i, shot in enumerate(shots):
        image = run.render_fn(
            shot.expr,
            shot.world_from_head,
            shot.viewmat[None],
            (scale @ shot.K)[None],
            width=width,
            height=height,
        )[0]
        frame = to_uint8(image)
        if frames_dir is not None:
            write_png(frames_dir / f"frame_{i:05d}.png", frame)
        if (i + 1) % 25 == 0 or i + 1 == len(shots):
            elapsed = time.monotonic() - start
            print(f"{i + 1}/{len(shots)} frames, {elapsed:.1f} s", file=sys.stderr)
        yield frame
