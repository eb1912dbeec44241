"""One page of what was prepared: pictures, numbers, and the frames that look wrong."""

import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from npga_jax.core import atomic_write
from npga_jax.data import PREPARATION
from npga_jax.preparation.cloud_records import read_checks
from npga_jax.preparation.clouds import wrong_clouds
from npga_jax.preparation.matting import KIND, FrameCheck, wrong_frames
from npga_jax.preparation.raw import ALPHA_MAPS, CLOUDS, LABELS

_PICTURES = {
    "mattes": "Mattes over a checker: a row per sequence, a column per camera",
    "landmarks": "Landmarks over the images: a row per sequence, a column per camera",
    "clouds": "Clouds over the images (colours are normals): a row per sequence",
    "labels": "Label maps over the images: a row per sequence, a column per camera",
}
_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{text-align:left;padding:.2em 1em .2em 0}"
    "img{max-width:100%;border:1px solid #ccc}.wrong{color:#a00}"
)


class Wrong(NamedTuple):
    """A frame that looks wrong."""

    sequence: str
    camera: str  # "" for a cloud
    frame_id: int
    why: str


def write_report(output: Path) -> Path:
    """Writes preparation/report.html, of the records on disk.

    Pictures lie beside it; it needs no server and no network.

    Args:
      output: folder of the prepared subject.

    Returns:
      The page.

    Raises:
      InputError: it cannot be written.
    """
    path = output / PREPARATION / "report.html"
    mattes = _matte_records(output)
    wrong = [*_wrong_mattes(mattes), *_wrong_clouds(output)]
    rows = [_about_mattes(output, mattes), _about_clouds(output), _about_labels(output)]
    parts = [
        f"<h1>What was prepared of {html.escape(output.name)}</h1>",
        _table(("", "files", "frames", "found", "disk"), rows),
        f"<h2>Frames that look wrong: {len(wrong)}</h2>",
        _list_of(wrong),
    ]
    for name, title in _PICTURES.items():
        if (path.parent / f"{name}.png").exists():
            parts.append(f'<h2>{title}</h2><img src="{name}.png" alt="{name}">')
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{html.escape(output.name)}</title><style>{_STYLE}</style>"
        f"{''.join(parts)}</html>\n"
    )
    with atomic_write(path) as file:
        file.write(page.encode())
    return path


def _matte_records(output: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The records of mattes that can be read, by sequence and camera."""
    found = {}
    for path in sorted((output / PREPARATION / KIND).glob("*/cam_*.json")):
        try:
            stored = json.loads(path.read_text())
            checks = [FrameCheck(**frame) for frame in stored["frames"]]
            made_of = dict(stored["made_of"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        camera = path.stem.removeprefix("cam_")
        found[path.parent.name, camera] = {"made_of": made_of, "is": checks}
    return found


def _wrong_mattes(records: dict[tuple[str, str], dict[str, Any]]) -> Iterable[Wrong]:
    for (sequence, camera), record in records.items():
        for frame_id, why in wrong_frames(record["is"]).items():
            yield Wrong(sequence, camera, frame_id, why)


def _wrong_clouds(output: Path) -> Iterable[Wrong]:
    for (sequence, frame_id), why in wrong_clouds(read_checks(output)).items():
        yield Wrong(sequence, "", frame_id, why)


def _about_mattes(
    output: Path, records: dict[tuple[str, str], dict[str, Any]]
) -> Sequence[str]:
    checks = [c for record in records.values() for c in record["is"]]
    outlined = sum("plate" not in r["made_of"] for r in records.values())
    said = (
        [f"the person covers {np.mean([c.area for c in checks]):.0%}"] if checks else []
    )
    if outlined:
        said.append(f"{outlined} videos without plates: outlines of what stereo finds")
    files = _files(output, ALPHA_MAPS, "cam_*.mp4")
    return _row("mattes", files, len(checks), said)


def _about_clouds(output: Path) -> Sequence[str]:
    checks = read_checks(output).values()
    said = []
    if checks:
        points = np.median([c.num_points for c in checks])
        seconds = np.mean([c.seconds for c in checks])
        said = [f"{points:,.0f} points in the middle, {seconds:.1f} s a frame"]
    return _row("clouds", _files(output, CLOUDS, "frame_*.pcd"), len(checks), said)


def _about_labels(output: Path) -> Sequence[str]:
    return _row("label maps", _files(output, LABELS, "cam_*.npz"), 0, [])


def _files(output: Path, folder: str, name: str) -> list[Path]:
    """Files of one kind that were made, not those that are links to the user's own."""
    found = (output / "sequences").glob(f"*/{folder}/{name}")
    return [path for path in found if not path.is_symlink()]


def _row(
    what: str, files: Sequence[Path], num_frames: int, said: Sequence[str]
) -> Sequence[str]:
    disk = sum(path.stat().st_size for path in files) / 1e6
    frames = f"{num_frames:,}" if num_frames else ""
    return what, f"{len(files):,}", frames, "; ".join(said), f"{disk:,.1f} MB"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [_line("th", head), *(_line("td", row) for row in rows)]
    return f"<table>{''.join(lines)}</table>"


def _line(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(c)}</{tag}>' for c in cells)}</tr>"


def _list_of(wrong: Sequence[Wrong]) -> str:
    if not wrong:
        return "<p>None.</p>"
    rows = [
        (w.sequence, w.camera or "cloud", str(w.frame_id), w.why) for w in sorted(wrong)
    ]
    table = _table(("sequence", "camera", "frame", "why"), rows)
    return f'<div class="wrong">{table}</div>'
