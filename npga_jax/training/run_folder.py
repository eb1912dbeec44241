"""What a run folder holds besides checkpoints: settings and environment."""

import dataclasses
import json
import os
import platform
import subprocess
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from npga_jax.core import InputError, differences, from_json, write_json
from npga_jax.training.settings import TrainConfig
from npga_jax.training.versions import VERSION, upgraded

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
    "num_devices",
    "capture.cache_dir",
}


_OWN_PARTS = "own_parts"
"""In config.json, beside the settings."""


OWN_CAPTURE = "capture"
"""Among the own parts of a run: it was trained on what its settings do not name."""


def write_config(
    folder: Path, cfg: TrainConfig, own_parts: Collection[str] = ()
) -> None:
    """Stores what a run is.

    Args:
      own_parts: of its method, and `OWN_CAPTURE`: what no settings give.
    """
    settings = settings_to_json(cfg)
    write_json(folder / CONFIG_FILE, {**settings, _OWN_PARTS: sorted(own_parts)})


def settings_to_json(cfg: TrainConfig) -> dict[str, Any]:
    """Settings with their version; paths as text, NumPy's numbers as Python's."""
    plain = json.loads(json.dumps(dataclasses.asdict(cfg), default=_plain))
    return {"version": VERSION, **plain}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)


def read_config(folder: Path) -> TrainConfig:
    """Reads the settings of a run.

    Raises:
      InputError: if the folder is no run, or its settings cannot be understood.
    """
    return _read(folder)[0]


def read_own_parts(folder: Path) -> tuple[str, ...] | None:
    """Parts of a run that its settings do not give, sorted; see `write_config`.

    Returns:
      None where that is not known: runs of earlier versions did not write it.

    Raises:
      InputError: see `read_config`.
    """
    return _read(folder)[1]


def _read(folder: Path) -> tuple[TrainConfig, tuple[str, ...] | None]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise InputError(
            f"{folder} is not a run: there is no {CONFIG_FILE} in it. Give a folder "
            "that experiments/train.py has written."
        )
    try:
        settings = json.loads(path.read_text())
        own_parts = settings.pop(_OWN_PARTS, None)
        return (
            settings_from_json(settings),
            None if own_parts is None else tuple(map(str, own_parts)),
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be understood ({error}); it should be as "
            "experiments/train.py writes it. A run of a version that was never "
            "released is opened by that version, or trained again."
        ) from error


def settings_from_json(settings: dict[str, Any]) -> TrainConfig:
    """Settings of this version or an earlier one.

    Raises:
      InputError: see `versions.upgraded`.
      ValueError: they lack something, or have something unknown.
    """
    return from_json(TrainConfig, upgraded(settings))


def changed_settings(old: TrainConfig, new: TrainConfig) -> list[str]:
    """Sentences on the settings that differ, but for those that may."""
    return differences(old, new, FREE_TO_CHANGE)


_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "numba",
    "av",
)


def environment(devices: list[str], renderer: dict[str, Any]) -> dict[str, Any]:
    """Versions, machine and commit: what a number depends on.

    Args:
      devices: that are trained on.
      renderer: which of its ways the rasterizer takes, and why.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "devices": devices,
        "renderer": renderer,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "versions": {name: _version(name) for name in _PACKAGES},
        "commit": git_commit(),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def read_environment(folder: Path) -> dict[str, Any]:
    """The `environment` of a run; empty where it is not known."""
    try:
        return json.loads((folder / ENV_FILE).read_text())
    except (OSError, ValueError):
        return {}


def write_environment(folder: Path, found: dict[str, Any]) -> None:
    """Stores an `environment` with the run."""
    write_json(folder / ENV_FILE, found)


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
