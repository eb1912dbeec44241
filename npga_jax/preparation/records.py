"""What made files rest on: a record and a small picture beside each."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from npga_jax.core import InputError, write_json
from npga_jax.data import PREPARATION, Capture, Timestep
from npga_jax.io import write_png

TILE_WIDTH = 160


def sequence_record(output: Path, kind: str, sequence: str) -> Path:
    """The record of a sequence's files; its picture ends in .png."""
    return output / PREPARATION / kind / f"{sequence}.json"


def is_own(found: Path | None, made: Path, record: Path) -> bool:
    """Whether a file is the user's own: not where ours goes, a link, or unrecorded.

    Args:
      found: the file that is taken; None where there is none.
      made: where ours goes.
      record: of ours.
    """
    if found is None:
        return False
    is_elsewhere = found.parent.resolve() != made.parent.resolve()
    return is_elsewhere or found.is_symlink() or not record.exists()


def stamps(paths: Mapping[str, Path]) -> dict[str, Any]:
    """Size and time of change of files, which tell whether they are the same.

    Raises:
      InputError: one cannot be read.
    """
    found = {}
    for name, path in paths.items():
        try:
            stat = path.stat()
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}).") from error
        found[name] = [stat.st_size, stat.st_mtime_ns]
    return found


def calibration_digest(capture: Capture, timestep: Timestep) -> str:
    """Changes with any number of the cameras at a moment."""
    cameras = [capture.camera(timestep, c) for c in capture.cameras]
    digest = hashlib.sha256()
    for arrays in ([c.K for c in cameras], [c.world2cam for c in cameras]):
        digest.update(np.stack(arrays).tobytes())
    return digest.hexdigest()


def read_record(
    record: Path, made_of: Mapping[str, Any], made: Path
) -> list[dict[str, Any]] | None:
    """What was found when a file was made; None if it is to be made (again).

    Args:
      record: of `data.record_path`, or of `sequence_record`.
      made_of: what decides how the file looks.
      made: the file.
    """
    try:
        stored = json.loads(record.read_text())
        if stored["made_of"] != made_of or not made.exists():
            return None
        return list(stored["frames"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def begin_record(record: Path, made_of: Mapping[str, Any]) -> None:
    """Says that a file is ours, before it is there: one without a record is not."""
    write_json(record, {"made_of": made_of, "frames": None})


def write_record(
    record: Path,
    made_of: Mapping[str, Any],
    frames: Sequence[Mapping[str, Any]],
    picture: np.ndarray,
) -> None:
    """Writes a record, once the file is whole, and its picture [h, w, 3] uint8."""
    write_png(record.with_suffix(".png"), picture)
    write_json(record, {"made_of": made_of, "frames": list(frames)})


def shrink(image: np.ndarray) -> np.ndarray:
    """An image [H, W, 3] or [H, W] uint8 at the width of pictures."""
    height = round(image.shape[0] * TILE_WIDTH / image.shape[1])
    picture = Image.fromarray(image)
    return np.asarray(picture.resize((TILE_WIDTH, height), Image.Resampling.BOX))


def draw_sheet(rows: Mapping[str, Iterable[Path]], path: Path) -> None:
    """Writes the pictures beside some records to one: a row per sequence."""
    lines = []
    for records in rows.values():
        tiles = []
        for record in records:
            try:
                with Image.open(record.with_suffix(".png")) as tile:
                    tiles.append(np.asarray(tile))
            except OSError:
                continue
        if tiles:
            highest = max(tile.shape[0] for tile in tiles)
            tiles = [
                np.pad(t, ((0, highest - t.shape[0]), (0, 0), (0, 0))) for t in tiles
            ]
            lines.append(np.concatenate(tiles, axis=1))
    if not lines:
        return
    widest = max(line.shape[1] for line in lines)
    padded = [np.pad(x, ((0, 0), (0, widest - x.shape[1]), (0, 0))) for x in lines]
    write_png(path, np.concatenate(padded))
