"""Renders an avatar to a video: any driving file, a sequence, or a turntable.

python experiments/render.py --run RUN --driving codes.npz
python experiments/render.py --run RUN --sequence FREE
python experiments/render.py --run RUN --turntable
"""

import dataclasses
import math
from pathlib import Path
from typing import Literal

import numpy as np

from npga_jax.app import cli
from npga_jax.core import InputError, runtime


@dataclasses.dataclass(frozen=True)
class RenderConfig:
    """Render a trained avatar; give one of --driving, --sequence, --turntable."""

    run: Path
    """Run folder that experiments/train.py has written, or its avatar.npz alone."""
    method: Path | None = None
    """The file with the avatar's own method, where avatar.npz asks for it."""
    driving: Path | None = None
    """Driving file (.npz) of anybody, with codes of the model trained on."""
    sequence: str | None = None
    """Sequence of the capture, by name or prefix; the capture is then opened."""
    turntable: bool = False
    """Turn the camera around the head; with --sequence, --frame says which pose."""
    output: Path | None = None
    """The .mp4 file; default: in the run folder, named after what is rendered."""
    frames_dir: Path | None = None
    """Also write every frame as a .png into this folder."""
    camera: str | None = None
    """Camera of the capture to look from, which is then opened; default: the avatar's
    own, which is where the held-out camera was."""
    pose: Literal["motion", "file", "still"] = "motion"
    """Head pose under --driving. motion: that of the avatar at rest, moved as the
    driver moves from the first frame on (reenact.py calls it driver); file: the file's
    poses as they are; still: that of the avatar at rest (there: fixed)."""
    frame: int = 0
    """Which frame of --sequence the turntable shows: counted from 0 among those that
    are used (--capture.frame-stride of the training), not a frame_id."""
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
    """Opens the avatar, plans the frames, writes the video."""
    from npga_jax.app import check_sizes, open_avatar, render_shots
    from npga_jax.io import write_video

    check_choice(cfg)
    check_sizes(cfg.output, cfg.width, cfg.fps)
    runtime.configure()
    opened = open_avatar(cfg.run, data_root=cfg.data_root, method=cfg.method)
    name, shots = plan_shots(cfg, opened)
    output = cfg.output or opened.folder / "renders" / f"{name}.mp4"
    frames = render_shots(
        opened.avatar, shots, width=cfg.width, frames_dir=cfg.frames_dir
    )
    count = write_video(output, frames, cfg.fps or opened.avatar.camera.fps)
    print(f"wrote {output}: {count} frames")


def check_choice(cfg: RenderConfig) -> None:
    """Refuses what cannot be meant."""
    if cfg.driving is not None and (cfg.sequence is not None or cfg.turntable):
        raise InputError("--driving cannot be combined with --sequence or --turntable.")
    if cfg.driving is None and cfg.sequence is None and not cfg.turntable:
        raise InputError("give one of --driving FILE, --sequence NAME or --turntable.")
    check_effects(cfg)
    if cfg.num_frames < 1:
        raise InputError(f"--num-frames is {cfg.num_frames}; give 1 or more.")
    if not math.isfinite(cfg.turns):
        raise InputError(f"--turns is {cfg.turns}; give a finite number.")


def check_effects(cfg: RenderConfig) -> None:
    """Refuses what would do nothing beside the other options."""
    is_sequence_turned = cfg.turntable and cfg.sequence is not None
    needs = {
        "camera": (not cfg.turntable, "--driving, or --sequence without --turntable"),
        "pose": (cfg.driving is not None, "--driving"),
        "frame": (is_sequence_turned, "--turntable with --sequence"),
        "turns": (cfg.turntable, "--turntable"),
        "num_frames": (cfg.turntable, "--turntable"),
    }
    usual = {field.name: field.default for field in dataclasses.fields(cfg)}
    for name, (is_met, need) in needs.items():
        value = getattr(cfg, name)
        if value != usual[name] and not is_met:
            raise InputError(
                f"--{name.replace('_', '-')} {value} has no effect here: it is for "
                f"{need}. Leave it out."
            )


def plan_shots(cfg: RenderConfig, opened) -> tuple[str, list]:
    """Decides codes, poses and cameras of all frames, and a name for the file."""
    from npga_jax.app import (
        check_camera,
        driver_name,
        shot_of_timestep,
        turntable_shots,
    )
    from npga_jax.data import find_sequence

    camera = cfg.camera or opened.config.capture.held_out_camera
    if cfg.driving is not None:
        shots = shots_of_file(cfg, cfg.driving, opened)
        return f"{driver_name(cfg.driving)}_{camera}", shots
    expr = opened.avatar.neutral
    if cfg.sequence is not None:
        capture = opened.capture
        sequence = find_sequence(capture.sequences, cfg.sequence)
        timesteps = [t for t in capture.timesteps if t.sequence == sequence]
        if not cfg.turntable:
            check_camera(capture, camera)
            shots = [shot_of_timestep(capture, t, camera) for t in timesteps]
            return f"{sequence}_{camera}", shots
        if not 0 <= cfg.frame < len(timesteps):
            raise InputError(
                f"--frame {cfg.frame}: the sequence has frames 0 to "
                f"{len(timesteps) - 1}."
            )
        expr = capture.driving(timesteps[cfg.frame]).expr
    return "turntable", turntable_shots(
        opened.avatar, expr, num_frames=cfg.num_frames, turns=cfg.turns
    )


def shots_of_file(cfg: RenderConfig, path: Path, opened) -> list:
    """Frames driven by a file."""
    from npga_jax.app import follow_motion, load_codes, neutral_shot

    codes = load_codes(path, opened.avatar)
    reference = neutral_shot(opened, cfg.camera)
    poses = codes.world_from_head
    if cfg.pose == "still":
        poses = np.broadcast_to(reference.world_from_head, poses.shape)
    elif cfg.pose == "motion":
        poses = follow_motion(reference.world_from_head, poses)
    return [
        reference._replace(expr=expr, world_from_head=pose)
        for expr, pose in zip(codes.expr, poses, strict=True)
    ]


if __name__ == "__main__":
    cli.run(main, RenderConfig)
