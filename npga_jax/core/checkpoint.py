"""Training states on disk, through Orbax: whole or not there at all."""

import contextlib
import errno
import logging
import os
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding
from orbax.checkpoint import v1 as ocp

from npga_jax.core import InputError

CHECKPOINTS = "checkpoints"
"""The folder in a run's folder."""
FORMAT_VERSION = 2
KEPT = 3
"""Checkpoints that stay on disk: the latest ones."""


def _checkpointer(folder: Path, **options) -> ocp.training.Checkpointer:
    # Orbax insists on absolute paths; by its types, text or its own kind of path.
    return ocp.training.Checkpointer(str(folder.resolve()), **options)


def latest_step(folder: Path) -> int | None:
    """Step of the newest complete checkpoint, or None if there is none.

    One that was copied by half is passed over; one that is written by half does not
    have its name yet.
    """
    if not folder.is_dir():
        return None
    with _without_logged_traces(), _checkpointer(folder) as checkpointer:
        for saved in reversed(checkpointer.checkpoints):
            try:
                metadata = checkpointer.metadata(saved.step).custom_metadata
            except Exception:  # Orbax has many for what is not there.
                continue
            if "format_version" in (metadata or {}):
                return saved.step
    return None


def format_version(folder: Path, step: int) -> int:
    """The format that a checkpoint was written in; 0 where that is not known."""
    with _without_logged_traces(), _checkpointer(folder) as checkpointer:
        try:
            found = checkpointer.metadata(step).custom_metadata or {}
        except Exception:  # Orbax has many for what is not there.
            return 0
    return int(found.get("format_version", 0))


def save_state(folder: Path, state: Any, metadata: dict[str, Any]) -> None:
    """Writes a checkpoint named by its step; returns when it is safely on disk.

    It is written beside and renamed at the end, so that a kill or a full disk at any
    moment leaves the earlier checkpoints as they were.

    Raises:
      InputError: if the disk is full or the folder cannot be written.
    """
    step = int(state.step)
    try:
        # Where Orbax cannot make its folder, its threads wait for it for minutes.
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".probe-"):
            pass
        with (
            _without_logged_traces(),
            _checkpointer(
                folder,
                preservation_policy=ocp.training.preservation_policies.LatestN(KEPT),
                cleanup_tmp_directories=True,
            ) as checkpointer,
        ):
            checkpointer.save(
                step,
                state,
                overwrite=True,
                custom_metadata={"format_version": FORMAT_VERSION, **metadata},
            )
    except Exception as error:
        trouble = _disk_trouble(error)
        if trouble is None:
            raise
        raise InputError(
            f"step {step} cannot be saved under {folder} ({trouble}); earlier "
            "checkpoints are intact. Mend that and go on with --resume."
        ) from error


_DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EEXIST,
)


def _disk_trouble(error: BaseException | None) -> str | None:
    """What the disk refused: looked for in an exception and its causes.

    Their texts count too, because writer threads reword what they raise.
    """
    while error is not None:
        for code in _DISK_ERRORS:
            name = os.strerror(code)
            if getattr(error, "errno", None) == code or name in str(error):
                return name.lower()
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def _without_logged_traces() -> Iterator[None]:
    """Keeps Orbax from logging the stack traces of what it raises anyway."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(previous)


def load_state(
    folder: Path, step: int, template: Any, sharding: Sharding
) -> tuple[Any, dict[str, Any]]:
    """Reads a checkpoint into the template's structure.

    Args:
      template: shapes and types, as `jax.eval_shape` gives them.
      sharding: where the arrays go.

    Returns:
      The state, and the metadata given at saving.

    Raises:
      InputError: if the checkpoint does not fit the template or cannot be read.
    """
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), template
    )
    with _without_logged_traces(), _checkpointer(folder) as checkpointer:
        try:
            metadata = checkpointer.metadata(step)
            _check_schema(metadata.metadata, abstract, folder / str(step))
            state = checkpointer.load(step, abstract)
        except InputError:
            raise
        except Exception as error:
            reason = f"{error.__cause__ or error}".partition("\n")[0]
            reason = textwrap.shorten(reason, 120, placeholder=" ...")
            raise InputError(
                f"the checkpoint {folder / str(step)} cannot be read ({reason}); "
                "delete that folder to go on from the one before it."
            ) from error
    return state, dict(metadata.custom_metadata or {})


def _check_schema(saved: Any, expected: Any, where: Path) -> None:
    if isinstance(saved, dict) and set(saved) == {"state"}:
        saved = saved["state"]
    shapes = [
        {
            jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
            for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
            if hasattr(leaf, "shape")
        }
        for tree in (saved, expected)
    ]
    saved_shapes, expected_shapes = shapes
    if not saved_shapes:
        raise OSError("its arrays are missing or damaged")
    for name in sorted(saved_shapes.keys() | expected_shapes.keys()):
        found, wanted = saved_shapes.get(name), expected_shapes.get(name)
        if found != wanted:
            raise InputError(
                f"the checkpoint {where} does not fit these settings: {name} has shape "
                f"{found or 'none'}, expected {wanted or 'none'}. Resume with the "
                "settings in the run's config.json."
            )


def first_non_finite(state: Any) -> str | None:
    """Path of the first leaf that holds NaN or infinity, or None."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        leaf = np.asarray(leaf)
        if np.issubdtype(leaf.dtype, np.floating) and not np.isfinite(leaf).all():
            return jax.tree_util.keystr(path, simple=True, separator="/")
    return None
