"""Training from a capture to a measured avatar: what experiments/train.py does."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jax

from npga_jax.app.deciding import decide, opened_settings
from npga_jax.app.evaluation import evaluate_run
from npga_jax.app.job import in_cache
from npga_jax.app.preparing import open_prepared
from npga_jax.avatar import Avatar, Method
from npga_jax.core import (
    CHECKPOINTS,
    InputError,
    atomic_write,
    checkpoint,
    is_lack_of_memory,
    memory,
    peak_rss_mb,
    runtime,
)
from npga_jax.data import (
    Capture,
    Split,
    holdout_split,
    locate_subject,
    open_capture,
    plan_step,
    sequences_to_track,
)
from npga_jax.distillation import Person
from npga_jax.rasterizer import renderer_path
from npga_jax.training import (
    AVATAR_FILE,
    CONFIG_FILE,
    LESS_MEMORY,
    METHOD_FILE,
    OWN_CAPTURE,
    Run,
    TrainConfig,
    Trainer,
    build_method,
    changed_settings,
    check_averaging,
    check_choices,
    check_halvings,
    check_usual_capture,
    environment,
    initial_state,
    load_run,
    load_state,
    make_avatar,
    make_preview_fn,
    make_renderer_fn,
    make_test_fn,
    method_of_run,
    own_parts,
    parallel,
    read_config,
    read_method,
    state_template,
    validate,
    write_avatar,
    write_config,
    write_environment,
)

_COPIES_OF_STATE = 2
"""While it is made, and while a step computes the next."""


def train(
    cfg: TrainConfig,
    method: Callable[[TrainConfig], Method] | None = None,
    *,
    capture: Capture | None = None,
) -> Run:
    """Codes where they are missing, data, training, evaluation.

    Args:
      cfg: settings; without arguments, those of the preset "quick". `PRESETS` has all
        that there are, to be changed with `dataclasses.replace`.
      method: makes what the run is made of, once the settings know where F comes
        from, as the function of a `--method` file does; None for that file, or else
        for what the settings say. The run folder keeps the names of the parts that are
        not what the settings give, but no code: to resume or open it, give it again.
      capture: with codes, instead of what `cfg` names; of a layout of your own, or
        opened already. It counts as it is and was opened, not as in `cfg.capture`;
        but what is held out is as there, where that is not the usual. To resume or
        open the run, give it again.

    Returns:
      The run, opened; `run.avatar()` is what was trained.

    Raises:
      InputError: settings, capture or machine do not allow it, or training diverged.
      KeyboardInterrupt: Ctrl-C, after the state was saved; Stopped: SIGTERM, likewise.
    """
    stages: dict[str, float] = {}
    validate(cfg)
    if method is not None and cfg.method is not None:
        raise InputError(
            f"the method is given twice: as a function, and as the file {cfg.method}; "
            "give one of them."
        )
    # What a method of one's own makes of the settings is known once it is made.
    if not cfg.resume and method is None and cfg.method is None:
        check_choices(cfg)
    is_own_capture = capture is not None
    if capture is not None:
        cfg = dataclasses.replace(cfg, subject=capture.subject)
        if not cfg.resume:  # Else they are in its settings.
            cfg = opened_settings(cfg, capture)
    folder = choose_folder(cfg)
    if cfg.resume and capture is None:
        check_usual_capture(folder)
    untracked: tuple[str, ...] = ()
    if capture is None:
        root, name = locate_subject(cfg.subject, cfg.data_root)
        untracked = sequences_to_track(root / name, cfg.capture)
    runtime.configure(num_cpu_devices=cfg.num_devices)
    began = time.perf_counter()
    if capture is None:
        if cfg.resume and not untracked:
            capture = open_capture(cfg.subject, cfg.data_root, cfg.capture)
        else:
            job = in_cache(root, name, cfg.capture, prior=cfg.prior)
            capture = open_prepared(cfg, job, untracked, stages)
        # They say what is held out where the layout has other names.
        cfg = dataclasses.replace(cfg, capture=capture.settings)
    split = holdout_split(
        capture, cfg.capture.held_out_sequence, cfg.capture.held_out_camera
    )
    stages["data"] = time.perf_counter() - began - sum(stages.values())
    print(
        f"{len(split.train)} training timesteps x {len(split.train[0].cameras)} "
        f"cameras at {capture.width}x{capture.height}, "
        f"{len(split.self_reenactment)} held out; run folder {folder}"
    )
    for note in capture.notes:
        print(f"note: {note}")
    cfg, person = decide(cfg, capture)
    if cfg.prior and person is None and not untracked and not cfg.resume:
        print(
            f"note: --prior {cfg.prior} is not used: there are driving codes of model "
            f"'{capture.driving_model}' already"
        )
    made = None if method is None else method(cfg)
    text = None
    if cfg.resume:
        made = method_of_run(folder, cfg, made)
    elif cfg.method is not None:
        text = read_method(cfg.method)
        made = build_method(cfg, text=text)
    elif made is None:
        made = build_method(cfg)
    if not cfg.resume:
        check_choices(cfg, own_parts(cfg, made))
    with explain_lack_of_memory():
        run_training(
            cfg,
            made,
            folder,
            capture,
            split,
            person,
            method_text=text,
            is_own_capture=is_own_capture,
        )
    run = load_run(folder, data_root=cfg.data_root, method=made, capture=capture)
    if cfg.evaluate:
        evaluate_run(run, stages=stages)
    return run


@contextlib.contextmanager
def explain_lack_of_memory() -> Iterator[None]:
    """Names the settings that memory depends on when it runs out."""
    try:
        yield
    except Exception as error:
        if not is_lack_of_memory(error):
            raise
        raise InputError(f"out of memory. {LESS_MEMORY}") from error


def choose_folder(cfg: TrainConfig) -> Path:
    """The run folder that is to be made, or the one that is to be resumed."""
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


def prepare_folder(
    folder: Path,
    cfg: TrainConfig,
    own: Sequence[str],
    found: dict[str, Any],
    method_text: bytes | None = None,
) -> None:
    """Makes the run folder and writes what the run is; settings are not replaced.

    Args:
      own: parts of it that the settings do not give.
      found: its environment.
      method_text: see `run_training`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not cfg.resume:
            # A folder with settings is a run: all that they name is there by then.
            if method_text is not None:
                with atomic_write(folder / METHOD_FILE) as file:
                    file.write(method_text)
            write_config(folder, cfg, own)
        write_environment(folder, found)
    except OSError as error:
        raise InputError(
            f"the run folder {folder} cannot be written ({error.strerror}); choose "
            "another with --output."
        ) from error


def run_training(
    cfg: TrainConfig,
    method: Method,
    folder: Path,
    capture: Capture,
    split: Split,
    person: Person | None,
    *,
    method_text: bytes | None = None,
    is_own_capture: bool = False,
) -> Avatar:
    """Trains to the last step, from the newest checkpoint if there is one.

    Args:
      method_text: of the file that made the method, for the run folder.
      is_own_capture: whether the capture is not what the settings name.

    Returns:
      What avatar.npz in the folder holds then.
    """
    # All that can be wrong with the settings comes before the folder is made.
    mesh = parallel.make_mesh(cfg.num_devices, cfg.views_per_step)
    plan_step(0, seed=cfg.seed, train=split.train, views_per_step=cfg.views_per_step)
    check_labels(cfg, capture, split)
    check_averaging(cfg, method)
    check_halvings(cfg, capture)
    template = state_template(cfg, method, capture.expr_names)
    memory.check_room(
        _COPIES_OF_STATE
        * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(template)),
        f"a state of {cfg.gaussians.capacity} Gaussians",
        LESS_MEMORY,
    )
    seconds, max_isects = 0.0, 0
    step = checkpoint.latest_step(folder / CHECKPOINTS)
    if step is None:
        state = initial_state(cfg, method, capture, split.train, person)
    else:
        state, metadata = load_state(
            folder, step, cfg, method, capture.expr_names, mesh
        )
        seconds = float(metadata["seconds"])
        # The same program as before: what follows is the same to the last bit.
        max_isects = int(metadata.get("max_isects", 0))
        print(f"resuming at step {step}")
    devices = [str(d) for d in mesh.devices.flat]
    found = environment(devices, renderer_path()._asdict())
    own = own_parts(cfg, method) + ((OWN_CAPTURE,) if is_own_capture else ())
    prepare_folder(folder, cfg, own, found, method_text)
    renderer_fn = make_renderer_fn(method, capture)
    trainer = Trainer(
        cfg,
        method,
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
        f"{int(state.alive.sum())} Gaussians on {describe_devices(cfg, mesh.size)}, "
        f"room for {trainer.max_isects} intersections a view; compiling the step",
        flush=True,
    )
    state = trainer.run()
    print(
        f"\ntrained {cfg.steps} steps in {trainer.clock.seconds:.0f} s, "
        f"peak memory {peak_rss_mb():.0f} MiB"
    )
    avatar = make_avatar(
        cfg,
        method,
        state.params,
        state.alive,
        capture,
        split,
        steps=int(state.step),
        environment=found,
    )
    write_avatar(folder / AVATAR_FILE, avatar)
    print(f"wrote {folder / AVATAR_FILE}", file=sys.stderr)
    return avatar


def check_labels(cfg: TrainConfig, capture: Capture, split: Split) -> None:
    """Refuses a weight on eyes and mouth where nothing tells where they are."""
    views = ((v.timestep, c) for v in split.train for c in v.cameras)
    if cfg.resume or not cfg.loss.parts or any(capture.has_labels(*v) for v in views):
        return
    raise InputError(
        f"--loss.parts {cfg.loss.parts} has no effect: no training frame of subject "
        f"{capture.subject} has a label map (segmentation/cam_SERIAL.npz), which tells "
        "where eyes and mouth are. Supply them, or leave it out."
    )


def describe_devices(cfg: TrainConfig, used: int) -> str:
    """How many devices are trained on, and why not on all."""
    there = len(jax.local_devices())
    text = f"{used} {jax.default_backend()} device(s)"
    if used < there and not cfg.num_devices:
        text = (
            f"{used} of {there} {jax.default_backend()} devices (they share "
            f"--views-per-step {cfg.views_per_step} evenly; {there} views use all)"
        )
    return text
