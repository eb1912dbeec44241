"""Where caches are, whether a folder can be written, and files written whole."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from npga_jax.core.errors import InputError


def cache_root(chosen: Path | None = None) -> Path:
    """The folder for all that can be made anew.

    Args:
      chosen: the user's choice; None for $NPGA_CACHE, else ~/.cache/npga_jax.
    """
    root = chosen or Path(os.environ.get("NPGA_CACHE") or "~/.cache/npga_jax")
    return root.expanduser()


@contextlib.contextmanager
def atomic_write(
    path: Path, *, instead: str = "choose another --output"
) -> Iterator[BinaryIO]:
    """Opens a file that appears under its name only when all of it is written.

    It is written beside, as `path`.<process>.part, which an error or a second process
    cannot mistake for the result; folders are made. Whatever ends the block early
    leaves the old file as it was, and no part.

    Args:
      path: where to; an older file is replaced.
      instead: what to do where this place cannot be written, for the message.

    Yields:
      The open file; its `name` is that of the part, for writers that want a path.

    Raises:
      InputError: the place cannot be written. An OSError about another file is not
        touched.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    ours = {str(p) for p in (part, path, *path.parents)}
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                yield file
            os.replace(part, path)
        finally:
            with contextlib.suppress(OSError):
                part.unlink()
    except OSError as error:
        if error.filename is not None and str(error.filename) not in ours:
            raise
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); free some space, "
            f"or {instead}."
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, whole or not at all.

    Raises:
      InputError: the file cannot be written.
    """
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=2, default=str) + "\n").encode())


def check_writable(folder: Path) -> None:
    """Finds out before long work whether its result can be kept.

    The folder is made, but not left behind if it was not there.

    Raises:
      InputError: it cannot be made or written to.
    """
    try:
        missing = [p for p in (folder, *folder.parents) if not p.exists()]
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
