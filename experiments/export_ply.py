"""Writes one posed frame as .ply: `python experiments/export_ply.py --run RUN`."""

import dataclasses
from pathlib import Path

import numpy as np

from npga_jax.app import cli
from npga_jax.core import InputError, runtime


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Write the avatar at one frame for viewers of 3D Gaussian splatting."""

    run: Path
    """Run folder that experiments/train.py has written."""
    output: Path = Path("avatar.ply")
    """The file to write."""
    sequence: str | None = None
    """Sequence, by name or prefix; default: the held-out one."""
    frame: int = 0
    """Which frame of the sequence, counted from 0."""
    world: bool = False
    """Positions in the capture's world instead of the head's own frame; metres both.
    Only for avatars without view-dependent colour."""
    data_root: Path | None = None
    """Folder that holds the subjects, if it has moved since the training."""


def main(cfg: ExportConfig) -> None:
    runtime.configure()
    from npga_jax.data import find_sequence
    from npga_jax.io import write_ply
    from npga_jax.training import load_run

    if cfg.output.suffix.lower() != ".ply":
        raise InputError(f"--output {cfg.output} does not end in .ply.")
    run = load_run(cfg.run, data_root=cfg.data_root)
    name = cfg.sequence or run.config.capture.held_out_sequence
    sequence = find_sequence(run.capture.sequences, name)
    timesteps = [t for t in run.capture.timesteps if t.sequence == sequence]
    if not 0 <= cfg.frame < len(timesteps):
        raise InputError(
            f"--frame {cfg.frame}: sequence {sequence} has frames 0 to "
            f"{len(timesteps) - 1}."
        )
    if cfg.world and run.config.gaussians.sh_degree > 0:
        raise InputError(
            "--world cannot be used with view-dependent colour (its harmonics belong "
            "to the head's frame); leave it out."
        )
    timestep = timesteps[cfg.frame]
    driving = run.capture.driving(timestep)
    pose = driving.world_from_head if cfg.world else np.eye(4, dtype=np.float32)
    count = write_ply(cfg.output, run.splats(driving.expr, pose))
    print(
        f"wrote {cfg.output}: {count:,} Gaussians at {sequence} frame "
        f"{timestep.frame_id}, {'world' if cfg.world else 'head'} frame, metres"
    )


if __name__ == "__main__":
    cli.run(main, ExportConfig)
