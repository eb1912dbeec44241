"""Renders an avatar to a video: any driving file, a sequence, or a turntable.

python experiments/render.py --run RUN --driving codes.npz
python experiments/render.py --run RUN --sequence FREE
python experiments/render.py --run RUN --turntable
"""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

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
from npga_jax.core import InputError, runtime


@dataclasses.dataclass(frozen=True)
class RenderConfig:
    """Render a trained avatar; give one of --driving, --sequence, --turntable."""

    run: Path
    """Run folder that experiments/train.py has written."""
    driving: Path | None = None
    """Driving file (.npz) of anybody, with codes of the model trained on."""
    sequence: str | None = None
    """Sequence of the run's own capture, by name or prefix."""
    turntable: bool = False
    """Turn the camera around the head; with --sequence, --frame says which pose."""
    output: Path | None = None
    """The .mp4 file; default: in the run folder, named after what is rendered."""
    frames_dir: Path | None = None
    """Also write every frame as a .png into this folder."""
    camera: str | None = None
    """Camera of the capture to look from; default: the held-out one."""
    pose: Literal["motion", "file", "still"] = "motion"
    """Head pose under --driving. motion: the person's own pose, moved as the driver
    moves from the first frame on; file: the file's poses as they are; still."""
    frame: int = 0
    """Frame of --sequence that the turntable shows, counted from 0."""
    turns: float = 1.0
    """Turns of the turntable, from the front."""
    num_frames: int = 72
    """Frames of the turntable."""
    width: int | None = None
    """Width in pixels; default: that of the training."""
    fps: float | None = None
    """Frames a second; default: the capture's."""
    data_root: Path | None = None
    """Folder that holds the subjects, if it has moved since the training."""


def main(cfg: RenderConfig) -> None:
    check_choice(cfg)
    runtime.configure()
    from npga_jax.io import write_video
    from npga_jax.training import load_run

    run = load_run(cfg.run, data_root=cfg.data_root)
    camera = choose_camera(run, cfg.camera)
    name, shots = plan_shots(cfg, run, camera)
    output = cfg.output or cfg.run / "renders" / f"{name}.mp4"
    frames = render_shots(run, shots, width=cfg.width, frames_dir=cfg.frames_dir)
    count = write_video(output, frames, cfg.fps or run.capture.fps)
    print(f"wrote {output}: {count} frames")


def check_choice(cfg: RenderConfig) -> None:
    """Refuses what cannot be meant."""
    if cfg.driving is not None and (cfg.sequence is not None or cfg.turntable):
        raise InputError("--driving cannot be combined with --sequence or --turntable.")
    if cfg.driving is None and cfg.sequence is None and not cfg.turntable:
        raise InputError("give one of --driving FILE, --sequence NAME or --turntable.")
    if cfg.num_frames < 1:
        raise InputError(f"--num-frames is {cfg.num_frames}; give 1 or more.")
    check_sizes(cfg.output, cfg.width, cfg.fps)


def plan_shots(cfg: RenderConfig, run: Any, camera: str) -> tuple[str, list[Shot]]:
    """Decides codes, poses and cameras of all frames, and a name for the file."""
    if cfg.driving is not None:
        return f"{driver_name(cfg.driving)}_{camera}", shots_of_file(cfg, run, camera)
    timesteps = run.capture.timesteps
    if cfg.sequence is not None:
        from npga_jax.data import find_sequence

        sequence = find_sequence(run.capture.sequences, cfg.sequence)
        timesteps = [t for t in timesteps if t.sequence == sequence]
    if not cfg.turntable:
        return f"{sequence}_{camera}", [
            shot_of_timestep(run.capture, t, camera) for t in timesteps
        ]
    if cfg.sequence is None:
        timestep = most_neutral(run.capture)
    elif 0 <= cfg.frame < len(timesteps):
        timestep = timesteps[cfg.frame]
    else:
        raise InputError(
            f"--frame {cfg.frame}: the sequence has frames 0 to {len(timesteps) - 1}."
        )
    return "turntable", turntable_shots(
        run.capture, timestep, num_frames=cfg.num_frames, turns=cfg.turns
    )


def most_neutral(capture: Any) -> Any:
    """The timestep with the smallest expression code."""
    from npga_jax.core import most_neutral_row

    codes = np.stack([capture.driving(t).expr for t in capture.timesteps])
    return capture.timesteps[most_neutral_row(codes)]


def shots_of_file(cfg: RenderConfig, run: Any, camera_id: str) -> list[Shot]:
    """Frames driven by a file, seen by a camera of the capture."""
    from npga_jax.app import follow_motion

    codes = load_codes(cfg.driving, run)
    reference = shot_of_timestep(run.capture, most_neutral(run.capture), camera_id)
    poses = codes.world_from_head
    if cfg.pose == "still":
        poses = np.broadcast_to(reference.world_from_head, poses.shape)
    elif cfg.pose == "motion":
        poses = follow_motion(reference.world_from_head, poses)
    return [
        reference._replace(expr=expr, world_from_head=pose)
        for expr, pose in zip(codes.expr, poses, strict=True)
    ]


def turntable_shots(
    capture: Any, timestep: Any, *, num_frames: int, turns: float
) -> list[Shot]:
    """A circle around the point that the cameras look at, starting at the front.

    The radius is the cameras' mean distance from that point, the axis their mean
    upward direction, the lens their mean one with its centre in the picture's.
    """
    cameras = [capture.camera(timestep, c) for c in capture.cameras]
    R = np.stack([c.world2cam[:3, :3] for c in cameras]).astype(np.float64)
    t = np.stack([c.world2cam[:3, 3] for c in cameras]).astype(np.float64)
    centres = -np.einsum("cji,cj->ci", R, t)  # [C, 3]
    target = nearest_point_to_axes(centres, R[:, 2])
    up = -R[:, 1].mean(0)
    up /= np.linalg.norm(up)
    front = (centres - target).mean(0)
    front -= up * (front @ up)
    front /= np.linalg.norm(front)
    radius = np.linalg.norm(centres - target, axis=1).mean()
    K = np.mean([c.K for c in cameras], axis=0)
    K[0, 2], K[1, 2] = capture.width / 2, capture.height / 2
    driving = capture.driving(timestep)
    shots = []
    for angle in 2 * math.pi * turns * np.arange(num_frames) / num_frames:
        outward = math.cos(angle) * front + math.sin(angle) * np.cross(up, front)
        viewmat = look_at(target + radius * outward, target, up)
        shots.append(
            Shot(
                driving.expr,
                driving.world_from_head,
                viewmat.astype(np.float32),
                K.astype(np.float32),
            )
        )
    return shots


def nearest_point_to_axes(centres: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """The point [3] nearest to all lines of `centres` [C, 3] along unit `axes` [C, 3].

    A single camera, or parallel ones, leave it open; then it is put 1 m ahead.
    """
    ahead = (centres + axes).mean(0)
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]  # [C, 3, 3]
    # The small ridge settles what the lines leave open.
    matrix = across.sum(0) + 1e-6 * np.eye(3)
    return np.linalg.solve(
        matrix, np.einsum("cij,cj->i", across, centres) + 1e-6 * ahead
    )


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


if __name__ == "__main__":
    cli.run(main, RenderConfig)
