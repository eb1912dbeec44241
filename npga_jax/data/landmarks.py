"""Landmarks of the face, triangulated: `SEQ/landmarks/face.npz`.

Keys: frame_id [T] int, cameras [C] text, image_points [T, C, L, 2] float32 (shares of
width and height), seen [T, C] bool, points [T, L, 3] float32 (world, metres), agreeing
[T, L] uint8 (cameras; 0 where a point is not known), error [T, L] float32 (RMS, pixels
of images `size` [2]). L is 478, the landmarks of MediaPipe's face landmarker.
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np

from npga_jax.core import InputError, load_npz

NUM_LANDMARKS = 478
LANDMARKS = Path("landmarks") / "face.npz"
"""Below a sequence."""
_NEEDED = ("frame_id", "points", "agreeing", "error")
_MAX_BYTES = 1 << 32
_MOST_FILES = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Landmarks:
    """The landmarks of one moment; zero where a point is not known."""

    points: np.ndarray  # [478, 3] float32, world, metres
    agreeing: np.ndarray  # [478] uint8, cameras that agree; 0: not known
    error: np.ndarray  # [478] float32, RMS of what they are off, pixels


def find_landmarks(
    sequences: tuple[str, ...], folder: Path, prepared: Path
) -> dict[str, Path]:
    """The files of landmarks by sequence.

    Args:
      sequences: Their names.
      folder: The subject's, whose own files come first.
      prepared: See `prepared_folder`.
    """
    found = {}
    for sequence in sequences:
        for place in (prepared, folder):
            path = place / "sequences" / sequence / LANDMARKS
            if path.is_file():
                found[sequence] = path
    return found


def read_landmarks(path: Path, frame_id: int) -> Landmarks | None:
    """The landmarks of one frame of a file; None where it has no such frame.

    Raises:
      InputError: the file is damaged, lacks a key, or holds what cannot be.
    """
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    return _load(path, changed).get(frame_id)


@functools.lru_cache(maxsize=_MOST_FILES)
def _load(path: Path, _changed: int) -> dict[int, Landmarks]:
    """All frames of a file, as it was when it changed last."""
    arrays = load_npz(path, "an .npz of landmarks", max_bytes=_MAX_BYTES, names=_NEEDED)
    missing = [key for key in _NEEDED if key not in arrays]
    if missing:
        raise InputError(
            f"{path} lacks {', '.join(missing)}; expected {', '.join(_NEEDED)}. Make "
            "it again with experiments/prepare.py --landmarks."
        )
    frame_id, points, agreeing, error = (arrays[key] for key in _NEEDED)
    count, shape = len(np.atleast_1d(frame_id)), points.shape
    is_right = (
        frame_id.ndim == 1
        and frame_id.dtype.kind in "iu"
        and agreeing.dtype.kind in "iu"
        and points.dtype.kind == error.dtype.kind == "f"
        and shape == (count, NUM_LANDMARKS, 3)
        and agreeing.shape == error.shape == shape[:2]
        and bool(np.isfinite(points).all() and np.isfinite(error).all())
    )
    if not is_right:
        raise InputError(
            f"{path}: got frame_id {frame_id.shape} {frame_id.dtype}, points {shape} "
            f"{points.dtype}, agreeing {agreeing.shape} {agreeing.dtype} and error "
            f"{error.shape} {error.dtype}; expected [T] integers, finite "
            f"[T, {NUM_LANDMARKS}, 3], [T, {NUM_LANDMARKS}] integers and finite "
            f"[T, {NUM_LANDMARKS}]. Make it again with experiments/prepare.py "
            "--landmarks."
        )
    rows = zip(frame_id, points, agreeing, error, strict=True)
    return {
        int(frame): Landmarks(p.astype(np.float32), a, e.astype(np.float32))
        for frame, p, a, e in rows
    }
