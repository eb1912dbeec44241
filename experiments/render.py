"""Renders an avatar to a video: any driving file, a sequence, or a turntable.

python experiments/render.py --run RUN --driving codes.npz
python experiments/render.py --run RUN --sequence FREE
python experiments/render.py --run RUN --turntable
"""

import dataclasses
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from npga_jax import cli, runtime
from npga_jax.errors import InputError


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


class Shot(NamedTuple):
    """One frame to render."""

    expr: np.ndarray  # [E]
    world_from_head: np.ndarray  # [4, 4]
    viewmat: np.ndarray  # [4, 4]
    K: np.ndarray  # [3, 3]


def main(cfg: RenderConfig) -> None:
    check_choice(cfg)
    runtime.configure()
    from npga_jax.runs import load_run
    from npga_jax.video import write_video

    run = load_run(cfg.run, data_root=cfg.data_root)
    camera = cfg.camera or run.config.capture.held_out_camera
    if camera not in run.capture.cameras:
        raise InputError(
            f"there is no camera '{camera}' in this capture; it has "
            f"{', '.join(run.capture.cameras)}."
        )
    name, shots = plan_shots(cfg, run, camera)
    output = cfg.output or cfg.run / "renders" / f"{name}.mp4"
    frames = render_shots(run, shots, cfg)
    count = write_video(output, frames, cfg.fps or run.capture.fps)
    print(f"wrote {output}: {count} frames")


def check_choice(cfg: RenderConfig) -> None:
    """Refuses what cannot be meant."""
    if cfg.driving is not None and (cfg.sequence is not None or cfg.turntable):
        raise InputError("--driving cannot be combined with --sequence or --turntable.")
    if cfg.driving is None and cfg.sequence is None and not cfg.turntable:
        raise InputError("give one of --driving FILE, --sequence NAME or --turntable.")
    if cfg.output is not None and cfg.output.suffix.lower() != ".mp4":
        raise InputError(f"--output {cfg.output} does not end in .mp4.")
    if cfg.num_frames < 1 or (cfg.width is not None and cfg.width < 16):
        raise InputError("--num-frames must be 1 or more, and --width 16 or more.")
    if cfg.fps is not None and not 0 < cfg.fps <= 1000:
        raise InputError(f"--fps is {cfg.fps}; give a rate above 0, at most 1000.")


def plan_shots(cfg: RenderConfig, run: Any, camera: str) -> tuple[str, list[Shot]]:
    """Decides codes, poses and cameras of all frames, and a name for the file."""
    if cfg.driving is not None:
        return f"{driver_name(cfg.driving)}_{camera}", shots_of_file(cfg, run, camera)
    timesteps = run.capture.timesteps
    if cfg.sequence is not None:
        from npga_jax.data.capture import find_sequence

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


def driver_name(path: Path) -> str:
    """The file's name; in a capture, subject and sequence, which say more."""
    folders = path.resolve().parents
    if len(folders) > 3 and folders[0].name == "tracking":
        return f"{folders[3].name}_{folders[1].name}"
    return path.stem


def shot_of_timestep(capture: Any, timestep: Any, camera_id: str) -> Shot:
    """A frame of the capture itself."""
    driving = capture.driving(timestep)
    camera = capture.camera(timestep, camera_id)
    return Shot(driving.expr, driving.world_from_head, camera.world2cam, camera.K)


def most_neutral(capture: Any) -> Any:
    """The timestep with the smallest expression code."""
    return min(
        capture.timesteps, key=lambda t: float(np.linalg.norm(capture.driving(t).expr))
    )


def shots_of_file(cfg: RenderConfig, run: Any, camera_id: str) -> list[Shot]:
    """Frames driven by a file, seen by a camera of the capture."""
    from npga_jax.data.driving import load_driving

    codes = load_driving(cfg.driving)
    if codes.expr.shape[1] != run.capture.expr_dim:
        raise InputError(
            f"{cfg.driving}: codes of length {codes.expr.shape[1]} of model "
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
    reference = shot_of_timestep(run.capture, most_neutral(run.capture), camera_id)
    first = codes.world_from_head[0].astype(np.float64)
    shots = []
    for expr, pose in zip(codes.expr, codes.world_from_head, strict=True):
        if cfg.pose == "still":
            pose = reference.world_from_head
        elif cfg.pose == "motion":
            # The driver's motion, in the head's frame at the first frame.
            pose = reference.world_from_head @ np.linalg.solve(first, pose)
        shots.append(
            reference._replace(expr=expr, world_from_head=pose.astype(np.float32))
        )
    return shots


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


def render_shots(
    run: Any, shots: list[Shot], cfg: RenderConfig
) -> Iterator[np.ndarray]:
    """Yields frames [H, W, 3] uint8, and writes them as .png files if asked to."""
    from npga_jax.comparison import to_uint8, write_png

    width = cfg.width or run.capture.width
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
        if cfg.frames_dir is not None:
            write_png(cfg.frames_dir / f"frame_{i:05d}.png", frame)
        if (i + 1) % 25 == 0 or i + 1 == len(shots):
            elapsed = time.monotonic() - start
            print(f"{i + 1}/{len(shots)} frames, {elapsed:.1f} s", file=sys.stderr)
        yield frame


if __name__ == "__main__":
    cli.run(main, RenderConfig)
