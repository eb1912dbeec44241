"""Writes one posed frame as .ply: `python experiments/export_ply.py --run RUN`."""

import dataclasses
from pathlib import Path

import numpy as np

from npga_jax.app import cli
from npga_jax.core import InputError, check_output, runtime


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Write the avatar at one frame for viewers of 3D Gaussian splatting."""

    run: Path
    """Run folder that experiments/train.py has written, or its avatar.npz alone."""
    method: Path | None = None
    """The file with the avatar's own method, where avatar.npz asks for it."""
    output: Path = Path("avatar.ply")
    """The file to write."""
    sequence: str | None = None
    """Sequence of the capture, by name or prefix; default: the avatar at rest, or with
    --driving the first frame of that file."""
    driving: Path | None = None
    """Driving file (.npz) with codes of the model trained on."""
    frame: int = 0
    """Which frame of the sequence (among those that are used) or file: counted from 0,
    not a frame_id."""
    world: bool = False
    """Positions in the capture's world instead of the head's own frame; metres both.
    Only for avatars without view-dependent colour."""
    data_root: Path | None = None
    """Folder that holds the subjects, if it has moved since the training."""


def main(cfg: ExportConfig) -> None:
    """Poses the avatar and writes it."""
    runtime.configure()
    from npga_jax.app import open_avatar
    from npga_jax.io import write_ply

    if cfg.output.suffix.lower() != ".ply":
        raise InputError(f"--output {cfg.output} does not end in .ply.")
    if cfg.sequence is not None and cfg.driving is not None:
        raise InputError("--sequence and --driving cannot be combined; give one.")
    if cfg.frame and cfg.sequence is None and cfg.driving is None:
        raise InputError(
            f"--frame {cfg.frame} has no effect here: it is for --sequence or "
            "--driving. Leave it out."
        )
    check_output(cfg.output)
    opened = open_avatar(cfg.run, data_root=cfg.data_root, method=cfg.method)
    if cfg.world and opened.config.gaussians.sh_degree > 0:
        raise InputError(
            "--world cannot be used with view-dependent colour (its harmonics belong "
            "to the head's frame); leave it out."
        )
    what, expr, pose = choose_frame(cfg, opened)
    splats = opened.avatar.renderer.splats(expr, pose if cfg.world else None)
    count = write_ply(cfg.output, splats)
    print(
        f"wrote {cfg.output}: {count:,} Gaussians at {what}, "
        f"{'world' if cfg.world else 'head'} frame, metres"
    )


def choose_frame(cfg: ExportConfig, opened) -> tuple[str, np.ndarray, np.ndarray]:
    """What the frame is called, its code and its pose."""
    from npga_jax.app import load_codes
    from npga_jax.data import find_sequence

    avatar = opened.avatar
    if cfg.driving is not None:
        codes = load_codes(cfg.driving, avatar)
        check_frame(cfg.frame, len(codes.expr), str(cfg.driving))
        pose = codes.world_from_head[cfg.frame]
        return f"{cfg.driving} frame {cfg.frame}", codes.expr[cfg.frame], pose
    if cfg.sequence is None:
        return "rest", avatar.neutral, avatar.neutral_pose
    capture = opened.capture
    sequence = find_sequence(capture.sequences, cfg.sequence)
    timesteps = [t for t in capture.timesteps if t.sequence == sequence]
    check_frame(cfg.frame, len(timesteps), f"sequence {sequence}")
    timestep = timesteps[cfg.frame]
    driving = capture.driving(timestep)
    what = f"{sequence} frame {timestep.frame_id}"
    return what, driving.expr, driving.world_from_head


def check_frame(frame: int, count: int, what: str) -> None:
    """Raises InputError unless there is such a frame."""
    if not 0 <= frame < count:
        raise InputError(f"--frame {frame}: {what} has frames 0 to {count - 1}.")


if __name__ == "__main__":
    cli.run(main, ExportConfig)
