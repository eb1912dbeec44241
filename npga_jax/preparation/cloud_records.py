"""What made clouds rest on: a record and a picture per sequence."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npga_jax.core import write_json
from npga_jax.data import PREPARATION, Timestep
from npga_jax.io import write_png
from npga_jax.preparation.fusion import Cloud
from npga_jax.preparation.records import draw_sheet, sequence_record, shrink
from npga_jax.preparation.stereo import View, project

_KIND = "clouds"
_SHOWN = 4
"""Cameras of a picture."""
_BRIGHT = 0.45
"""Of the image behind the points."""


class CloudCheck(NamedTuple):
    """What was found at one moment."""

    num_points: int
    seconds: float
    made_of: str = ""
    """Changes with all that decides how many points are found; "" if not known."""


def read_checks(output: Path) -> dict[tuple[str, int], CloudCheck]:
    """What was found in all frames whose clouds were made, by sequence and frame.

    Args:
      output: folder of the prepared subject.
    """
    found = {}
    for record in sorted((output / PREPARATION / _KIND).glob("*.json")):
        for frame, check in _checks_in(record).items():
            found[record.stem, frame] = check
    return found


def keep_check(output: Path, timestep: Timestep, check: CloudCheck) -> None:
    """Adds to the record of a sequence what was found in one of its frames.

    Raises:
      InputError: it cannot be written.
    """
    record = sequence_record(output, _KIND, timestep.sequence)
    _write_checks(record, {**_checks_in(record), timestep.frame_id: check})


def forget_checks(output: Path, sequence: str, frames: Collection[int]) -> None:
    """Drops what was found in some frames, whose clouds are the user's own by now.

    Raises:
      InputError: the record cannot be written.
    """
    record = sequence_record(output, _KIND, sequence)
    checks = _checks_in(record)
    kept = {frame: check for frame, check in checks.items() if frame not in frames}
    if len(kept) < len(checks):
        _write_checks(record, kept)


def _write_checks(record: Path, checks: Mapping[int, CloudCheck]) -> None:
    frames = [
        {"frame_id": i, **c._replace(seconds=round(c.seconds, 2))._asdict()}
        for i, c in sorted(checks.items())
    ]
    write_json(record, {"frames": frames})


def _checks_in(record: Path) -> dict[int, CloudCheck]:
    """What a record holds; nothing if it cannot be read."""
    try:
        return {
            int(frame["frame_id"]): CloudCheck(
                int(frame["num_points"]),
                float(frame["seconds"]),
                str(frame.get("made_of", "")),
            )
            for frame in json.loads(record.read_text())["frames"]
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def clouds_sheet(output: Path) -> Path:
    """The picture of all sequences' clouds."""
    return output / PREPARATION / "clouds.png"


def draw_clouds(output: Path, sequences: Iterable[str]) -> None:
    """Writes a picture of the clouds of some sequences, a row for each.

    Raises:
      InputError: it cannot be written.
    """
    rows = {s: [sequence_record(output, _KIND, s)] for s in sequences}
    draw_sheet(rows, clouds_sheet(output))


def keep_picture(
    output: Path, sequence: str, views: Sequence[View], cloud: Cloud
) -> None:
    """Draws a cloud over the images of some cameras, as the sequence's picture.

    Raises:
      InputError: it cannot be written.
    """
    tiles = [shrink(draw_cloud(view, cloud)) for view in spread_views(views, _SHOWN)]
    picture = sequence_record(output, _KIND, sequence).with_suffix(".png")
    write_png(picture, np.concatenate(tiles, axis=1))


def spread_views(views: Sequence[View], count: int) -> list[View]:
    """Some of the views, from one end of the cameras' arc to the other."""
    places = np.stack(
        [-v.camera.world2cam[:3, :3].T @ v.camera.world2cam[:3, 3] for v in views]
    )
    _, _, axes = np.linalg.svd(places - places.mean(axis=0))
    order = np.argsort((places - places.mean(axis=0)) @ axes[0]).tolist()
    which = {round(i) for i in np.linspace(0, len(views) - 1, count).tolist()}
    return [views[order[i]] for i in sorted(which)]


def draw_cloud(view: View, cloud: Cloud) -> np.ndarray:
    """Draws the points that face a camera over its image, darkened: [H, W, 3] uint8.

    Their colour is their normal in the camera's frame: red to the right, green down,
    blue towards the camera.
    """
    picture = np.round(_BRIGHT * view.image).astype(np.uint8)
    height, width = picture.shape[:2]
    matrix = view.camera.world2cam.astype(np.float64)
    normals = cloud.normals @ matrix[:3, :3].T
    ways = cloud.xyz @ matrix[:3, :3].T + matrix[:3, 3]
    column, row, z = project(cloud.xyz, view.camera)
    shown = (column >= 0) & (row >= 0) & (column < width) & (row < height) & (z > 0)
    shown &= (normals * ways).sum(-1) < 0
    order = np.argsort(-z[shown])  # The nearest is drawn last.
    i, j = (x[shown][order].astype(int) for x in (row, column))
    colors = 127.5 * (1 + normals[shown][order] * [1, 1, -1])
    picture[i, j] = np.round(np.clip(colors, 0, 255)).astype(np.uint8)
    return picture
