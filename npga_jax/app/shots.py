"""Frames of an avatar that are to be rendered: what render.py and reenact.py share."""

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npga_jax.app.opened import Opened
from npga_jax.avatar import Avatar
from npga_jax.core import InputError, Progress
from npga_jax.data import Capture, DrivingFile, Timestep, load_driving
from npga_jax.evaluation import to_uint8
from npga_jax.io import write_png
from npga_jax.rasterizer import MAX_SIDE


class Shot(NamedTuple):
    """One frame to render."""

    expr: np.ndarray  # [E]
    world_from_head: np.ndarray  # [4, 4]
    viewmat: np.ndarray  # [4, 4] world-to-camera
    K: np.ndarray  # [3, 3] pixels of the training's images


def shot_of_timestep(capture: Capture, timestep: Timestep, camera_id: str) -> Shot:
    """A frame of the capture itself."""
    driving = capture.driving(timestep)
    camera = capture.camera(timestep, camera_id)
    return Shot(driving.expr, driving.world_from_head, camera.world2cam, camera.K)


def neutral_shot(opened: Opened, camera: str | None) -> Shot:
    """The avatar at rest.

    Args:
      camera: of the capture, which is then opened; None for the avatar's own, the
        front.
    """
    avatar = opened.avatar
    shot = Shot(
        avatar.neutral, avatar.neutral_pose, avatar.world_viewmat, avatar.camera.K
    )
    if camera is None:
        return shot
    check_camera(opened.capture, camera)
    found = opened.capture.camera(opened.capture.timesteps[0], camera)
    return shot._replace(viewmat=found.world2cam, K=found.K)


def check_camera(capture: Capture, camera: str) -> None:
    """Raises InputError if the capture has no such camera."""
    if camera not in capture.cameras:
        raise InputError(
            f"there is no camera '{camera}' in this capture; it has "
            f"{', '.join(capture.cameras)}."
        )


def check_sizes(output: Path | None, width: int | None, fps: float | None) -> None:
    """Refuses a video that cannot be written."""
    if output is not None and output.suffix.lower() != ".mp4":
        raise InputError(f"--output {output} does not end in .mp4.")
    if width is not None and not 16 <= width <= MAX_SIDE:
        raise InputError(f"--width is {width}; give 16 or more, at most {MAX_SIDE}.")
    if fps is not None and not 0 < fps <= 1000:
        raise InputError(f"--fps is {fps}; give a rate above 0, at most 1000.")


def load_codes(path: Path, avatar: Avatar) -> DrivingFile:
    """Reads a driving file for an avatar; warns if its codes are of another model.

    Raises:
      InputError: the file is damaged, or its codes are of another length.
    """
    codes = load_driving(path)
    check_codes(codes, avatar, str(path))
    return codes


def check_codes(codes: DrivingFile, avatar: Avatar, where: str) -> None:
    """Makes sure that codes can drive an avatar; warns if they are of another model.

    Args:
      codes: Of anybody.
      avatar: To be driven.
      where: They are from, for the message.

    Raises:
      InputError: they are of another length.
    """
    wanted = len(avatar.driving_names)
    if codes.expr.shape[1] != wanted:
        raise InputError(
            f"{where}: codes of length {codes.expr.shape[1]} of model "
            f"'{codes.model}'; this avatar was trained on length {wanted} of model "
            f"'{avatar.driving_model}'. Track driver and person with the same model."
        )
    if codes.model != avatar.driving_model:
        print(
            f"warning: the codes are of model '{codes.model}', the avatar was trained "
            f"on '{avatar.driving_model}'",
            file=sys.stderr,
        )


def driver_name(path: Path) -> str:
    """The file's name; in a capture, subject and sequence, which say more."""
    folders = path.resolve().parents
    if len(folders) > 3 and folders[0].name == "tracking":
        return f"{folders[3].name}_{folders[1].name}"
    return path.stem


def turntable_shots(
    avatar: Avatar,
    expr: np.ndarray,  # [E]
    *,
    num_frames: int,
    turns: float,
) -> list[Shot]:
    """The camera on a circle around the upright head, from the front."""
    splats = avatar.splats(expr)
    centre = np.average(splats.means, axis=0, weights=splats.opacities)
    viewmat = avatar.camera.viewmat
    eye = -viewmat[:3, :3].T @ viewmat[:3, 3]
    up = np.array([0.0, 1.0, 0.0])
    front = eye - centre
    front -= up * (front @ up)
    radius = np.linalg.norm(front)
    front /= radius
    K = avatar.camera.K.copy()
    K[0, 2], K[1, 2] = avatar.camera.width / 2, avatar.camera.height / 2
    shots = []
    for angle in 2 * math.pi * turns * np.arange(num_frames) / num_frames:
        outward = math.cos(angle) * front + math.sin(angle) * np.cross(up, front)
        looking = look_at(centre + radius * outward, centre, up).astype(np.float32)
        shots.append(Shot(expr, np.eye(4, dtype=np.float32), looking, K))
    return shots


def look_at(eye: np.ndarray, target: np.ndarray, up: np.ndarray) -> np.ndarray:
    """World-to-camera matrix [4, 4], OpenCV axes, of an eye that looks at a target."""
    z = target - eye
    z /= np.linalg.norm(z)
    x = np.cross(z, up)
    x /= np.linalg.norm(x)
    matrix = np.eye(4)
    matrix[:3, :3] = [x, np.cross(z, x), z]
    matrix[:3, 3] = -matrix[:3, :3] @ eye
    return matrix


def render_shots(
    avatar: Avatar,
    shots: Sequence[Shot],
    *,
    width: int | None = None,
    frames_dir: Path | None = None,
) -> Iterator[np.ndarray]:
    """Yields frames [H, W, 3] uint8, and writes them as .png files if asked to."""
    width = width or avatar.camera.width
    zoom = width / avatar.camera.width
    height = max(round(avatar.camera.height * zoom), 1)
    scale = np.diag([zoom, zoom, 1.0]).astype(np.float32)
    with Progress("rendering", len(shots), unit="frames") as progress:
        for i, shot in enumerate(shots):
            image = avatar.renderer(
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
            progress(i + 1)
            yield frame
