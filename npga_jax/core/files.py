"""Where caches are, whether a folder can be written, and JSON that is written whole."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from npga_jax.core.errors import InputError


def cache_root(chosen: Path | None = None) -> Path:
    """The folder for all that can be made anew.

    Args:
      chosen: the user's choice; None for $NPGA_CACHE, else ~/.cache/npga_jax.
    """
    root = chosen or Path(os.environ.get("NPGA_CACHE") or "~/.cache/npga_jax")
    return root.expanduser()


def write_json(path: Path, value: Any) -> None:
    """Writes JSON beside and renames, so that a reader never sees half a file."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=2, default=str) + "\n")
    os.replace(part, path)


def check_writable(folder: Path) -> None:
    """Finds out before long work whether its result can be kept.

    The folder is made, but not left behind if it was not there.

    Raises:
      InputError: it cannot be made or written to.
    """
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".probe-"):
            pass
        for made in missing:
            made.rmdir()
    except OSError as error:
        raise cannot_write(folder, error) from error


def check_output(path: Path | None) -> None:
    """Finds out before long work whether the file that `--output` names can be made.

    Raises:
      InputError: it is a folder, or its folder cannot be written to.
    """
    if path is None:
        return
    if path.is_dir():
        raise InputError(f"--output {path} is a folder; give a file.")
    check_writable(path.parent)


def cannot_write(folder: Path, error: OSError) -> InputError:
    """What to raise when a folder of results turns out not to be writable."""
    return InputError(
        f"the folder {folder} cannot be written ({error.strerror}); free space there, "
        "or have the results written elsewhere."
    )
