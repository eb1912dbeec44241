"""Trains an avatar: `python experiments/train.py --subject demo`."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from npga_jax.app import cli
from npga_jax.core import InputError, option_from_argv, runtime
from npga_jax.training import TrainConfig, preset_from_argv, validate

_COPIES_OF_STATE = 2
"""While it is made, and while a step computes the next."""


def main(cfg: TrainConfig) -> None:
    """Codes where they are missing, data, training, evaluation."""
    from npga_jax.data import (
        holdout_split,
        locate_subject,
        open_capture,
        sequences_to_track,
    )
    from npga_jax.distillation import open_person

    stages: dict[str, float] = {}
    validate(cfg)
    folder = choose_folder(cfg)
    root, name = locate_subject(cfg.subject, cfg.data_root)
    untracked = sequences_to_track(root / name, cfg.capture)
    runtime.configure(num_cpu_devices=cfg.num_devices)
    if untracked:
        began = time.perf_counter()
        make_codes(cfg, root, name, untracked)
        stages["tracking"] = time.perf_counter() - began
    began = time.perf_counter()
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

    for note in capture.notes:
        print(f"note: {note}")
    # The run keeps its codes, also if files of another tracker are added later.
    used = dataclasses.replace(cfg.capture, driving=capture.driving_name)
    cfg = dataclasses.replace(cfg, capture=used)
    person = None
    if cfg.forward.source != "none":
        person = open_person(capture, cfg.prior)
        source = choose_source(cfg, capture, has_person=person is not None)
        forward = dataclasses.replace(cfg.forward, source=source)
        cfg = dataclasses.replace(cfg, forward=forward)
    if cfg.prior and person is None and not untracked and not cfg.resume:
        print(
            f"note: --prior {cfg.prior} is not used: there are driving codes of model "
            f"'{capture.driving_model}' already"
        )
    with explain_lack_of_memory():
        train(cfg, folder, capture, split, person)
    if cfg.evaluate:
        evaluate(folder, cfg, stages)


def choose_source(cfg: TrainConfig, capture, *, has_person: bool) -> str:
    """Where F comes from, once the codes are known."""
    if not has_person and cfg.forward.source == "distilled":
        raise InputError(
            f"--forward.source distilled needs codes of the head tracker; those of "
            f"subject {cfg.subject} are of '{capture.driving_model}'. Make codes with "
            "experiments/track.py and use them with --capture.driving nphm."
        )
    return "distilled" if has_person else "none"


def make_codes(
    cfg: TrainConfig, root: Path, name: str, sequences: tuple[str, ...]
) -> None:
    """Runs the head tracker, for the sake of sequences that lack its codes."""
    from npga_jax.data import TRACKED, holdout_split, open_nersemble, tracking_output
    from npga_jax.tracking import track_subject

    # Tracking is slow: what is wrong with the capture or the split is said before.
    capture = open_nersemble(
        root, name, cfg.capture, progress=False, decode=False, need_driving=False
    )
    holdout_split(capture, cfg.capture.held_out_sequence, cfg.capture.held_out_camera)
    output = tracking_output(root / name, cfg.capture)
    count = len(sequences)
    print(
        f"{count} of {len(capture.sequences)} sequences of subject {cfg.subject} "
        f"{'has' if count == 1 else 'have'} no "
        f"{f'{TRACKED}.npz' if cfg.capture.driving else 'driving codes'}: tracking the "
        f"head first; codes go to {output}",
        flush=True,
    )
    # It keeps what is there already, and takes the identity from it. Without a name it
    # may start from the poses of any other tracker.
    track_subject(
        root,
        name,
        dataclasses.replace(cfg.capture, driving=""),
        prior=cfg.prior,
        output=output,
        sequences=capture.sequences,
    )


@contextlib.contextmanager
def explain_lack_of_memory() -> Iterator[None]:
    """Names the settings that memory depends on when it runs out."""
    from npga_jax.core import is_lack_of_memory
    from npga_jax.training import LESS_MEMORY

    try:
        yield
    except Exception as error:
        if not is_lack_of_memory(error):
            raise
        raise InputError(f"out of memory. {LESS_MEMORY}") from error


def choose_folder(cfg: TrainConfig) -> Path:
    """The run folder that is to be made, or the one that is to be resumed."""
    from npga_jax.core import CHECKPOINTS
    from npga_jax.training import CONFIG_FILE, changed_settings, read_config

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
    return folder


def prepare_folder(folder: Path, cfg: TrainConfig, devices: list[str]) -> None:
    """Makes the run folder and writes what the run is; settings are not replaced."""
    from npga_jax.training import write_config, write_environment

    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not cfg.resume:
            write_config(folder, cfg)
        write_environment(folder, devices)
    except OSError as error:
        raise InputError(
            f"the run folder {folder} cannot be written ({error.strerror}); choose "
            "another with --output."
        ) from error


def train(cfg: TrainConfig, folder: Path, capture, split, person) -> None:
    """Trains to the last step, from the newest checkpoint if there is one."""
    import jax

    from npga_jax.core import CHECKPOINTS, checkpoint, memory
    from npga_jax.core import process as loop
    from npga_jax.data import plan_step
    from npga_jax.training import (
        initial_state,
        make_preview_fn,
        make_renderer_fn,
        make_test_fn,
        parallel,
        state_template,
    )
    from npga_jax.training import trainer as fitting

    # All that can be wrong with the settings comes before the folder is made.
    mesh = parallel.make_mesh(cfg.num_devices)
    parallel.check_divisible(cfg.views_per_step, mesh)
    plan_step(0, seed=cfg.seed, train=split.train, views_per_step=cfg.views_per_step)
    template = state_template(cfg, capture.expr_dim)
    memory.check_room(
        _COPIES_OF_STATE
        * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(template)),
        f"a state of {cfg.gaussians.capacity} Gaussians",
        fitting.LESS_MEMORY,
    )
    seconds, max_isects = 0.0, 0
    step = checkpoint.latest_step(folder / CHECKPOINTS)
    if step is None:
        state = initial_state(cfg, capture, split.train, person)
    else:
        state, metadata = checkpoint.load_state(
            folder / CHECKPOINTS,
            step,
            template,
            parallel.replicated(mesh),
        )
        seconds = float(metadata["seconds"])
        # The same program as before: what follows is the same to the last bit.
        max_isects = int(metadata.get("max_isects", 0))
        print(f"resuming at step {step}")
    prepare_folder(folder, cfg, [str(d) for d in jax.devices()])
    renderer_fn = make_renderer_fn(cfg, capture)
    trainer = fitting.Trainer(
        cfg,
        capture,
        split,
        folder,
        state,
        seconds_before=seconds,
        max_isects=max_isects,
        preview_fn=make_preview_fn(cfg, capture, split, renderer_fn),
        test_fn=make_test_fn(cfg, capture, split, renderer_fn),
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
        f"peak memory {loop.peak_rss_mb():.0f} MiB"
    )


def evaluate(folder: Path, cfg: TrainConfig, stages: dict[str, float]) -> None:
    """Measures the run that is in `folder` and writes videos."""
    from npga_jax.app import evaluate_run
    from npga_jax.training import load_run

    evaluate_run(load_run(folder, data_root=cfg.data_root), stages=stages)


def defaults() -> TrainConfig:
    """The preset; or when a run is resumed, that run's own settings."""
    from npga_jax.training import read_config

    argv = sys.argv[1:]
    output = option_from_argv("--output", argv)
    if "--resume" in argv and output:
        return read_config(Path(output))
    return preset_from_argv(argv)


if __name__ == "__main__":
    cli.run(main, TrainConfig, default=defaults)
