"""What a run folder holds besides checkpoints: settings, environment, two logs."""

import dataclasses
import json
import os
import platform
import subprocess
import types
import typing
from importlib import metadata
from pathlib import Path
from typing import Any

from npga_jax.core import InputError, write_json
from npga_jax.training.settings import TrainConfig

CONFIG_FILE = "config.json"
ENV_FILE = "env.json"
CURVE_FILE = "curve.jsonl"

# What may differ when a run is resumed, since it does not change the result.
FREE_TO_CHANGE = {
    "resume",
    "output",
    "data_root",
    "save_every",
    "log_every",
    "preview_every",
    "test_every",
    "evaluate",
    "max_isects",
    "capture.cache_dir",
}


def write_config(folder: Path, cfg: TrainConfig) -> None:
    """Stores the settings of a run."""
    write_json(folder / CONFIG_FILE, dataclasses.asdict(cfg))


def read_config(folder: Path) -> TrainConfig:
    """Reads the settings of a run.

    Raises:
      InputError: if the folder is no run, or its settings cannot be understood.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise InputError(
            f"{folder} is not a run: there is no {CONFIG_FILE} in it. Give a folder "
            "that experiments/train.py has written."
        )
    try:
        return _from_json(TrainConfig, json.loads(path.read_text()), "")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be understood ({error}); it should be as "
            "experiments/train.py of this version writes it. A run of another version "
            "is opened by that version, or trained again."
        ) from error


def _from_json(kind: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = {
            f.name: f"{name}.{f.name}".strip(".") for f in dataclasses.fields(kind)
        }
        # What an older version did not know, it may have done otherwise than today's
        # default does; where the result depends on it, nothing is filled in.
        for field, full in names.items():
            if field not in value and full not in FREE_TO_CHANGE:
                raise ValueError(f"there is no '{full}' in it")
        return kind(**{k: _from_json(hints[k], v, names[k]) for k, v in value.items()})
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is None and type(None) in options:
        return None
    if Path in options:
        return Path(value)
    if typing.get_origin(kind) is tuple:
        return tuple(value)
    return value


def changed_settings(old: TrainConfig, new: TrainConfig) -> list[str]:
    """Sentences on the settings that differ, but for those that may."""
    before, after = (_flat(dataclasses.asdict(c)) for c in (old, new))
    return [
        f"{name} was {before[name]}, is now {after[name]}"
        for name in before
        if name not in FREE_TO_CHANGE and before[name] != after.get(name)
    ]


def _flat(tree: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def write_environment(folder: Path, devices: list[str]) -> None:
    """Stores versions, machine and commit: what a number depends on."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "av")
    write_json(
        folder / ENV_FILE,
        {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "machine": platform.machine(),
            "cpu_count": os.cpu_count(),
            "devices": devices,
            "xla_flags": os.environ.get("XLA_FLAGS", ""),
            "versions": {name: metadata.version(name) for name in names},
            "commit": git_commit(),
        },
    )


def git_commit() -> str | None:
    """Commit of the checkout that the package lies in, or None."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
