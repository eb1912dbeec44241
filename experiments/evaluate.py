"""Measures a run and writes videos: `python experiments/evaluate.py --run RUN`."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from npga_jax.app import cli
from npga_jax.core import InputError, runtime


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Measure novel views and self-reenactment, and write videos of both."""

    run: Path
    """Run folder that experiments/train.py has written."""
    method: Path | None = None
    """The file with the run's own method, where that was given from Python."""
    data_root: Path | None = None
    """Folder that holds the subjects, if it has moved since the training."""
    output: Path | None = None
    """Where the folder `evaluation` goes; default: the run folder."""
    zero_expression: bool = True
    """Also measure self-reenactment with the expression codes zeroed."""
    lpips_vgg_images: int = 32
    """Images per split on which LPIPS of VGG is computed, which is slow on a CPU."""
    videos: bool = True
    """Write videos and stills, not numbers alone."""
    driving: Path | None = None
    """Driving file (.npz) that takes the place of the held-out sequence's own: to
    compare trackers. Results go to <run>/driven_by_<file name>."""


def main(cfg: EvaluateConfig) -> None:
    runtime.configure()
    from npga_jax.evaluation import evaluate, format_table
    from npga_jax.training import load_run

    if cfg.lpips_vgg_images < 0:
        raise InputError(
            f"--lpips-vgg-images is {cfg.lpips_vgg_images}; give 0 or more."
        )
    run = load_run(cfg.run, data_root=cfg.data_root, method=cfg.method)
    # `RedrivenCapture` asks the capture for all that it does not answer itself.
    capture: Any = run.capture
    output = cfg.output or cfg.run
    if cfg.driving is not None:
        capture = RedrivenCapture(run.capture, run.split, cfg.driving)
        output = cfg.output or cfg.run / f"driven_by_{cfg.driving.stem}"
    result = evaluate(
        run.render_fn,
        capture,
        run.split,
        output,
        num_gaussians=int(run.alive.sum()),
        steps=run.step,
        seconds=run.seconds,
        lpips_vgg_images=cfg.lpips_vgg_images,
        zero_expression=cfg.zero_expression,
        videos=cfg.videos,
        driven_by=cfg.driving and str(cfg.driving),
    )
    print(format_table(result))
    print(f"wrote {output / 'evaluation'}")


class RedrivenCapture:
    """A capture whose held-out sequence is driven by another file."""

    def __init__(self, capture: Any, split: Any, path: Path):
        from npga_jax.data import Driving, load_driving

        self._capture = capture
        codes = load_driving(path)
        if codes.model != capture.driving_model:
            print(
                f"note: {path} holds codes of {codes.model}, the avatar was trained on "
                f"{capture.driving_model}; they need not mean the same.",
                file=sys.stderr,
            )
        rows = {int(frame): i for i, frame in enumerate(codes.frame_id)}
        frames = [v.timestep.frame_id for v in split.self_reenactment]
        if not frames:
            raise InputError(
                f"--driving {path} drives the sequence that is held out, and the run "
                "has none; leave it out, or train with --capture.held-out-sequence."
            )
        missing = [frame for frame in frames if frame not in rows]
        if missing:
            raise InputError(
                f"{path} has no code for frame {missing[0]} of the held-out sequence "
                f"({len(missing)} of {len(frames)} frames are missing)."
            )
        self._driving = {
            v.timestep.index: Driving(codes.expr[row], codes.world_from_head[row])
            for v in split.self_reenactment
            for row in (rows[v.timestep.frame_id],)
        }

    def __getattr__(self, name: str) -> Any:
        return getattr(self._capture, name)

    def driving(self, timestep: Any) -> Any:
        """The file's code in the held-out sequence, the capture's elsewhere."""
        own = self._driving.get(timestep.index)
        return self._capture.driving(timestep) if own is None else own


if __name__ == "__main__":
    cli.run(main, EvaluateConfig)
