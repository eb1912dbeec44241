"""A run folder, opened: its avatar, its capture, its settings."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

from npga_jax.avatar import Avatar, AvatarRenderer, Method
from npga_jax.core import (
    CHECKPOINTS,
    AvatarParams,
    InputError,
    Params,
    checkpoint,
)
from npga_jax.data import Capture, Split, holdout_split, open_capture
from npga_jax.training import parallel
from npga_jax.training.artefact import make_avatar
from npga_jax.training.building import default_method
from npga_jax.training.method_file import METHOD_FILE, build_method
from npga_jax.training.ownership import own_parts
from npga_jax.training.run_folder import (
    OWN_CAPTURE,
    read_config,
    read_environment,
    read_own_parts,
)
from npga_jax.training.settings import TrainConfig
from npga_jax.training.start import state_template
from npga_jax.training.state import TrainState


def make_renderer_fn(
    method: Method, capture: Capture
) -> Callable[[TrainState], AvatarRenderer]:
    """A function from states of a run in progress to their renderer.

    It is one renderer, compiled once, and shows the state that was asked for last.
    """
    renderer: AvatarRenderer | None = None

    def renderer_of(state: TrainState) -> AvatarRenderer:
        nonlocal renderer
        if renderer is None:
            renderer = AvatarRenderer(
                method,
                state.params,
                state.alive,
                capture.width,
                capture.height,
                num_expr=capture.expr_dim,
            )
        renderer.params, renderer.alive = state.params, state.alive
        return renderer

    return renderer_of


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run folder, opened."""

    folder: Path
    config: TrainConfig
    method: Method
    capture: Capture
    split: Split
    step: int
    params: AvatarParams
    alive: jax.Array
    seconds: dict[str, float]
    render_fn: AvatarRenderer

    def avatar(self) -> Avatar:
        """The avatar as it is at this step, which needs neither run nor capture."""
        return make_avatar(
            self.config,
            self.method,
            self.params,
            self.alive,
            self.capture,
            self.split,
            steps=self.step,
            environment=read_environment(self.folder),
        )


def method_of_run(
    folder: Path, cfg: TrainConfig, given: Path | Method | None = None
) -> Method:
    """The method of a run: what is given, or the file in its folder, or the settings'.

    Args:
      folder: of the run.
      cfg: its settings.
      given: the method, or the file that makes it.

    Raises:
      InputError: the run was made with other parts of its own than there are now.
    """
    file = folder / METHOD_FILE
    recorded = read_own_parts(folder)
    wanted = recorded and tuple(x for x in recorded if x != OWN_CAPTURE)
    if isinstance(given, Method):
        made = given
    elif given is not None or file.is_file():
        made = build_method(cfg, given or file)
    elif wanted is None:
        made = build_method(cfg)
    else:
        made = default_method(cfg)
    found = own_parts(cfg, made)
    if wanted is None or set(found) == set(wanted):
        return made
    has = f"has its own {', '.join(found)}" if found else "has no own parts"
    raise InputError(
        f"{folder} was trained with its own {', '.join(wanted) or 'nothing'}, from "
        f"{cfg.method or 'Python'}, and the method that is there now {has}. Give what "
        "it was trained with: method= in Python, --method FILE to the scripts that "
        "read a run."
    )


def check_usual_capture(folder: Path) -> None:
    """Raises InputError where a run's settings do not name what it was trained on."""
    if OWN_CAPTURE in (read_own_parts(folder) or ()):
        raise InputError(
            f"{folder} was trained on a capture that was given from Python, which its "
            "settings do not name; give it again, with capture=."
        )


def load_run(
    folder: Path,
    *,
    data_root: Path | None = None,
    method: Path | Method | None = None,
    capture: Capture | None = None,
) -> Run:
    """Opens the newest checkpoint of a run.

    Args:
      data_root: where the capture is now, if it has moved since the training.
      method: what the run was made of, if that was given in Python; or the file that
        makes it.
      capture: what it was trained on, if that was given in Python.

    Raises:
      InputError: if the folder is no run, has no checkpoint, or its capture or method
        is gone.
    """
    cfg = read_config(folder)
    step = checkpoint.latest_step(folder / CHECKPOINTS)
    if step is None:
        raise InputError(
            f"{folder} has no complete checkpoint yet; train on with "
            f"experiments/train.py --resume --output {folder}."
        )
    method = method_of_run(folder, cfg, method)
    if capture is None:
        check_usual_capture(folder)
        capture = open_capture(cfg.subject, data_root or cfg.data_root, cfg.capture)
    split = holdout_split(
        capture, cfg.capture.held_out_sequence, cfg.capture.held_out_camera
    )
    state, metadata = load_state(
        folder, step, cfg, method, capture.expr_names, parallel.make_mesh(1)
    )
    return Run(
        folder=folder,
        config=cfg,
        method=method,
        capture=capture,
        split=split,
        step=step,
        params=state.params,
        alive=state.alive,
        seconds={"training": float(metadata.get("seconds", 0.0))},
        render_fn=make_renderer_fn(method, capture)(state),
    )


class _Params1(NamedTuple):
    """`AvatarParams` in checkpoints of format 1."""

    gaussians: Params
    detail: Params
    coarse: Params
    screen: Params


def load_state(
    folder: Path,
    step: int,
    cfg: TrainConfig,
    method: Method,
    names: tuple[str, ...],
    mesh: jax.sharding.Mesh,
) -> tuple[TrainState, dict]:
    """The state of a checkpoint, on every device, and what was saved beside it.

    Args:
      folder: of the run.
      step: of the checkpoint.
      names: of the components of the code.
      mesh: the devices.

    Raises:
      InputError: it cannot be read, or does not fit the settings.
    """
    template = state_template(cfg, method, names)
    checkpoints = folder / CHECKPOINTS
    is_old = checkpoint.format_version(checkpoints, step) == 1
    if is_old:
        template = _each_params(
            template,
            AvatarParams,
            lambda p: _Params1(p.gaussians, p.detail, p.forward, p.screen),
        )
    state, metadata = checkpoint.load_state(
        checkpoints, step, template, parallel.replicated(mesh)
    )
    if is_old:
        state = _each_params(
            state,
            _Params1,
            lambda p: AvatarParams(p.gaussians, p.coarse, p.detail, p.screen),
        )
    return state, metadata


def _each_params(state: TrainState, kind: type, change: Callable) -> TrainState:
    """Changes the parameters of a state, their average and their moments."""
    return jax.tree.map(
        lambda x: change(x) if isinstance(x, kind) else x,
        state,
        is_leaf=lambda x: isinstance(x, kind),
    )
