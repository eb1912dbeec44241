"""The tracked codes on disk: one neutral file per sequence."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from npga_jax.core import InputError, atomic_write, load_npz
from npga_jax.data import TRACKED, load_driving
from npga_jax.nphm import HeadModel
from npga_jax.tracking.head_prior import LoadedPrior

FILE = f"{TRACKED}.npz"
_MOST_BYTES = 2**30
"""Of a file's arrays: far more than an hour of codes takes."""


class Tracked(NamedTuple):
    """What a sequence's file holds, beside the name of the model."""

    frame_id: np.ndarray  # [T] int
    expr: np.ndarray  # [T, E] float32
    world_from_head: np.ndarray  # [T, 4, 4], head in metres
    z_id: np.ndarray  # [lat_dim_geo]
    residual_mm: np.ndarray  # [T] median distance of the skin's points
    model: str


class Existing(NamedTuple):
    """What earlier tracking left."""

    sequences: frozenset[str]
    geo: np.ndarray | None


def fingerprint(model: HeadModel) -> str:
    """Eight hex digits that change with any weight."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(model.params):
        digest.update(np.asarray(leaf, np.float32).tobytes())
    return digest.hexdigest()[:8]


def model_name(loaded: LoadedPrior) -> str:
    """What files of driving codes call a head model."""
    return f"nphm {loaded.name} {fingerprint(loaded.model)}"


def path_of(output: Path, sequence: str) -> Path:
    """Where a sequence's codes are."""
    return output / sequence / "tracking" / FILE


def write_tracked(output: Path, sequence: str, tracked: Tracked) -> Path | None:
    """Writes a sequence's codes, whole or not at all; nothing if it has no frame.

    Raises:
      InputError: the file cannot be written.
    """
    if not len(tracked.frame_id):
        return None
    path = path_of(output, sequence)
    with atomic_write(path) as file:
        np.savez_compressed(
            file,
            frame_id=tracked.frame_id.astype(np.int64),
            expr=tracked.expr.astype(np.float32),
            world_from_head=tracked.world_from_head.astype(np.float32),
            z_id=tracked.z_id.astype(np.float32),
            residual_mm=tracked.residual_mm.astype(np.float32),
            model=tracked.model,
            head_unit="m",
        )
    return path


def read_identity(
    output: Path, sequences: Sequence[str], loaded: LoadedPrior
) -> Existing:
    """Which sequences have codes already, and whose identity they are.

    Raises:
      InputError: they are of another head model or damaged.
    """
    name, geo, found = model_name(loaded), None, set()
    for sequence in sequences:
        path = path_of(output, sequence)
        if not path.is_file():
            continue
        theirs = load_driving(path).model
        if theirs != name:
            raise InputError(
                f"{path} was tracked with the model '{theirs}', not '{name}'. Give "
                f"that model with --prior, or delete the old tracking in {output}."
            )
        own = load_identity(path, loaded)
        if geo is not None and not np.array_equal(own, geo):
            raise InputError(
                f"{path} has another identity than other sequences in {output}; delete "
                "the old tracking there to track all of them together."
            )
        geo = own
        found.add(sequence)
    return Existing(frozenset(found), geo)


def load_identity(path: Path, loaded: LoadedPrior) -> np.ndarray:
    """The identity code in a file of tracked codes: [lat_dim_geo].

    Raises:
      InputError: there is none that fits the model, it is not finite, or the file is
        damaged.
    """
    arrays = load_npz(
        path, "an .npz of tracked codes", max_bytes=_MOST_BYTES, names=("z_id",)
    )
    geo = arrays.get("z_id", np.zeros(0))
    expected = (loaded.model.cfg.lat_dim_geo,)
    if geo.shape != expected or geo.dtype.kind != "f" or not np.isfinite(geo).all():
        raise InputError(
            f"{path} has no identity code z_id of {expected[0]} finite numbers, as "
            "experiments/track.py writes it; delete the file to track again."
        )
    return geo.astype(np.float32)
