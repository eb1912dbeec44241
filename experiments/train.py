"""Trains an avatar: `python experiments/train.py --subject demo`."""

import dataclasses
import os
import sys
import time
from datetime import datetime
from pathlib import Path

from npga_jax import cli, runtime
from npga_jax.config import TrainConfig, preset_from_argv
from npga_jax.errors import InputError


def main(cfg: TrainConfig) -> None:
    """Data, training, evaluation."""
    from npga_jax.data import open_capture
    from npga_jax.data.splits import holdout_split

    stages: dict[str, float] = {}
    began = time.perf_counter()
    folder = prepare_folder(cfg)
    capture = open_capture(cfg.subject, cfg.data_root, cfg.capture)
    split = holdout_split(
        capture, cfg.capture.held_out_sequence, cfg.capture.held_out_camera
    )
    stages["data"] = time.perf_counter() - began
    print(
        f"{len(split.train)} training timesteps x {len(split.train[0].cameras)} "
        f"cameras at {capture.width}x{capture.height}, "
        f"{len(split.self_reenactment)} held out; run folder {folder}"
    )

    from npga_jax import parallel

    runtime.configure()
    if cfg.num_devices != 1:
        cores = len(os.sched_getaffinity(0))
        parallel.use_cpu_devices(cfg.num_devices or cpu_devices(cfg, cores))
    train(cfg, folder, capture, split)
    if cfg.evaluate:
        evaluate(folder, capture, split, stages)


def cpu_devices(cfg: TrainConfig, cores: int) -> int:
    """One device per core, at most 4, that divide the views of a step."""
    count = min(cores, 4, cfg.views_per_step)
    while cfg.views_per_step % count:
        count -= 1
    return count


def prepare_folder(cfg: TrainConfig) -> Path:
    """Makes the run folder, or checks the one that is to be resumed."""
    from npga_jax.run_folder import (
        CHECKPOINTS,
        CONFIG_FILE,
        changed_settings,
        read_config,
        write_config,
    )

    if cfg.resume:
        if cfg.output is None:
            raise InputError(
                "--resume needs --output: the run folder that is to be continued."
            )
        changes = changed_settings(read_config(cfg.output), cfg)
        if changes:
            raise InputError(
                f"--resume cannot continue {cfg.output} with other settings: "
                f"{'; '.join(changes)}. Give the original ones, or start a new run."
            )
        return cfg.output
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = cfg.output or Path("runs") / cfg.subject / now
    if (folder / CHECKPOINTS).exists() or (folder / CONFIG_FILE).exists():
        raise InputError(
            f"{folder} already holds a run. Continue it with --resume, or choose "
            "another --output."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_config(folder, cfg)
    except OSError as error:
        raise InputError(
            f"the run folder {folder} cannot be written ({error.strerror}); choose "
            "another with --output."
        ) from error
    return folder


def train(cfg: TrainConfig, folder: Path, capture, split) -> None:
    """Trains to the last step, from the newest checkpoint if there is one."""
    import jax

    from npga_jax import checkpoint, fitting, parallel
    from npga_jax.build import initial_state, state_template
    from npga_jax.preview import make_preview_fn
    from npga_jax.run_folder import CHECKPOINTS, write_environment

    write_environment(folder, [str(d) for d in jax.devices()])
    seconds = 0.0
    step = checkpoint.latest_step(folder / CHECKPOINTS)
    if step is None:
        state = initial_state(cfg, capture, split.train)
    else:
        mesh = parallel.make_mesh(cfg.num_devices)
        state, metadata = checkpoint.load_state(
            folder / CHECKPOINTS,
            step,
            state_template(cfg, capture.expr_dim),
            parallel.replicated(mesh),
        )
        seconds = float(metadata["seconds"])
        print(f"resuming at step {step}")
    trainer = fitting.Trainer(
        cfg,
        capture,
        split,
        folder,
        state,
        seconds_before=seconds,
        preview_fn=make_preview_fn(cfg, capture, split),
    )
    print(
        f"{int(state.alive.sum())} Gaussians on {trainer.mesh.size} "
        f"{jax.default_backend()} device(s), room for {trainer.max_isects} "
        f"intersections a view; compiling the step",
        flush=True,
    )
    trainer.run()
    print(
        f"\ntrained {cfg.steps} steps in {trainer.total_seconds:.0f} s, "
        f"peak memory {fitting.peak_rss_mb():.0f} MiB"
    )


def evaluate(folder: Path, capture, split, stages: dict[str, float]) -> None:
    """Measures the run that is in `folder` and writes videos."""
    from npga_jax.evaluation import evaluate_run
    from npga_jax.runs import load_run

    evaluate_run(load_run(folder), stages=stages)


if __name__ == "__main__":
    cli.run(main, TrainConfig, default=preset_from_argv())
