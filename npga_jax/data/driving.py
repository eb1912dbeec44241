"""Reads driving codes: the neutral .npz that head trackers are converted into.

Keys: frame_id [T] int, expr [T, E], world_from_head [T, 4, 4], model, head_unit
("m", or "nphm" for heads four times as large) and, if there are names, expr_names [E].
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from npga_jax.core import InputError, cache_root, load_npz

TRACKED = "nphm"
"""Name of the driving files that experiments/track.py writes."""

REQUIRED_KEYS = ("frame_id", "expr", "world_from_head", "model", "head_unit")
_METRES_TO_UNIT = {"m": 1.0, "nphm": 4.0}
_SIMILARITY_TOLERANCE = 0.01
_MAX_BYTES = 1 << 30
"""Of a file's arrays: far more than an hour of codes takes."""


@dataclasses.dataclass(frozen=True, eq=False)
class DrivingFile:
    """The codes of one sequence, in the order of its frames."""

    frame_id: np.ndarray  # [T] int64, ascending, frames of the raw video
    expr: np.ndarray  # [T, E] float32
    world_from_head: np.ndarray  # [T, 4, 4] float32, from head metres to world metres
    expr_names: tuple[str, ...]
    model: str
    head_unit: str  # as in the file; the poses here always take metres


def load_driving(path: Path) -> DrivingFile:
    """Reads and checks a file of driving codes.

    Poses of heads in NPHM's unit are rescaled, so that heads are in metres.

    Args:
      path: The .npz file.

    Raises:
      InputError: if the file is damaged, lacks a key, or holds shapes, numbers or
        poses that cannot be.
    """
    arrays = load_npz(
        path,
        "an .npz of driving codes",
        max_bytes=_MAX_BYTES,
        names=(*REQUIRED_KEYS, "expr_names"),
    )
    return driving_from_arrays(path, arrays)


def driving_from_arrays(path: Path, arrays: dict[str, np.ndarray]) -> DrivingFile:
    """Checks the arrays of a driving file, or of another that was made into one.

    Args:
      path: Where they are from, for messages.
      arrays: By key; see the module.

    Raises:
      InputError: see `load_driving`.
    """
    missing = [key for key in REQUIRED_KEYS if key not in arrays]
    if missing:
        raise InputError(
            f"{path} lacks {', '.join(missing)}; it has "
            f"{', '.join(sorted(arrays)) or 'none of them'}. "
            f"A driving file holds {', '.join(REQUIRED_KEYS)} (and expr_names)."
        )
    frame_id, expr = arrays["frame_id"], arrays["expr"]
    world_from_head = arrays["world_from_head"]
    length = len(frame_id) if frame_id.ndim == 1 else 0
    if (
        length == 0
        or not np.issubdtype(frame_id.dtype, np.integer)
        or not _is_float(expr)
        or not _is_float(world_from_head)
        or expr.ndim != 2
        or expr.shape[0] != length
        or expr.shape[1] == 0
        or world_from_head.shape != (length, 4, 4)
    ):
        raise InputError(
            f"{path}: got frame_id {frame_id.shape} {frame_id.dtype}, expr "
            f"{expr.shape} {expr.dtype} and world_from_head {world_from_head.shape}; "
            "expected [T] integers, [T, E] and [T, 4, 4] with the same T > 0."
        )
    if len(np.unique(frame_id)) != length or frame_id.min() < 0:
        raise InputError(f"{path}: frame_id must not repeat or be negative.")
    order = np.argsort(frame_id)
    frame_id = frame_id[order].astype(np.int64)
    expr, world_from_head = expr[order], world_from_head[order].astype(np.float64)
    _check_frames(path, frame_id, np.isfinite(expr).all(axis=1), "an expression code")
    _check_frames(path, frame_id, np.isfinite(world_from_head).all((1, 2)), "a pose")
    _check_poses(path, frame_id, world_from_head)
    unit = str(arrays["head_unit"])
    if unit not in _METRES_TO_UNIT:
        raise InputError(
            f"{path}: head_unit is '{unit}'; expected 'm' for metres, or 'nphm' for "
            "NPHM's unit (four times as large)."
        )
    world_from_head[:, :3, :3] *= _METRES_TO_UNIT[unit]
    return DrivingFile(
        frame_id=frame_id,
        expr=expr.astype(np.float32),
        world_from_head=world_from_head.astype(np.float32),
        expr_names=_expr_names(path, arrays, expr.shape[1]),
        model=str(arrays["model"]),
        head_unit=unit,
    )


def tracked_folder(subject_folder: Path, cache_dir: Path | None = None) -> Path:
    """Where a subject's tracked codes lie that are not in the capture itself.

    Args:
      subject_folder: The subject's folder; two copies do not share codes.
      cache_dir: The user's choice; None for $NPGA_CACHE, else ~/.cache/npga_jax.

    Returns:
      The folder that holds SEQ/tracking/nphm.npz. It need not exist.
    """
    folder = subject_folder.resolve()
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    return cache_root(cache_dir) / "tracking" / f"{folder.name}-{digest}"


def list_driving_files(
    subject_folder: Path, sequence: str, cache_dir: Path | None = None
) -> dict[str, Path]:
    """Lists the driving files of a sequence by name, which is without ".npz".

    Captures cannot always be written to, so codes may also lie in the cache. Where a
    name is in both, the capture's own file counts.

    Args:
      subject_folder: The subject's folder.
      sequence: Name of the sequence's folder.
      cache_dir: As in `tracked_folder`.
    """
    found: dict[str, Path] = {}
    for folder in (
        subject_folder / "sequences" / sequence,
        tracked_folder(subject_folder, cache_dir) / sequence,
    ):
        for path in sorted((folder / "tracking").glob("*.npz")):
            found.setdefault(path.stem, path)
    return found


def _is_float(array: np.ndarray) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating))


def _check_frames(path: Path, frame_id: np.ndarray, is_good: Any, what: str) -> None:
    """Names the first of the frames that are not good."""
    if not is_good.all():
        bad = frame_id[~is_good]
        raise InputError(
            f"{path}: frame {bad[0]} has {what} that is not finite ({len(bad)} of "
            f"{len(frame_id)} frames). Take these rows out of the file: frames without "
            "a code are left out."
        )


def _check_poses(path: Path, frame_id: np.ndarray, poses: np.ndarray) -> None:
    """Makes sure that poses [T, 4, 4] are rotation * uniform scale + translation."""
    linear = poses[:, :3, :3]
    det = np.linalg.det(linear)
    scale = np.cbrt(np.maximum(det, 1e-30))[:, None, None]
    gram = np.einsum("tji,tjk->tik", linear, linear) / scale**2
    is_good = (
        (det > 1e-12)
        & (np.abs(gram - np.eye(3)).max((1, 2)) < _SIMILARITY_TOLERANCE)
        & (np.abs(poses[:, 3] - [0, 0, 0, 1]).max(-1) < 1e-5)
    )
    if not is_good.all():
        frame = frame_id[~is_good][0]
        raise InputError(
            f"{path}: world_from_head of frame {frame} is not a rotation times a "
            "uniform scale with a translation in the last column. Write matrices that "
            "take head points to world points, with (0, 0, 0, 1) as their last row."
        )


def _expr_names(path: Path, arrays: dict[str, np.ndarray], dim: int) -> tuple[str, ...]:
    if "expr_names" not in arrays:
        return tuple(f"expr_{i:03d}" for i in range(dim))
    names = tuple(str(name) for name in np.atleast_1d(arrays["expr_names"]))
    if len(names) != dim:
        raise InputError(
            f"{path}: {len(names)} expr_names for expression codes of length {dim}."
        )
    return names
