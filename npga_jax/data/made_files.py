"""Of which frames mattes and label maps are that were made: what their records say.

A file has all frames of its video; those that a run left out repeat the one before.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from npga_jax.data.findings import Findings, count_things

PREPARATION = Path("preparation")
"""Below the folder that holds sequences/SEQ/...: records, and pictures to look at."""
_KINDS = {"alpha_maps": "mattes", "segmentation": "labels"}
ALL_FRAMES = (1,)
"""Strides of files that were made for every frame, as the user's own are."""


def record_path(place: Path, kind: str, sequence: str, camera: str) -> Path:
    """The record of one camera's file in one sequence; its picture ends in .png.

    Args:
      place: the folder that holds sequences/SEQ/...
      kind: "mattes" or "labels".
      sequence: its name.
      camera: its serial.
    """
    return place / PREPARATION / kind / sequence / f"cam_{camera}.json"


def read_strides(record: Path) -> tuple[int, ...]:
    """Strides that a file was made for: its frames are the multiples of any of them.

    None where there is no record that it was finished.
    """
    try:
        stored = json.loads(record.read_text())
        if stored["frames"] is None:
            return ()
        stride = stored["made_of"]["stride"]
        strides = tuple(stride) if isinstance(stride, list) else (stride,)
        return tuple(s for s in strides if isinstance(s, int) and s > 0)
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def is_multiple(frame: int, strides: Iterable[int]) -> bool:
    """Whether a frame is a multiple of one of the strides."""
    return any(frame % stride == 0 for stride in strides)


def made_strides(source: Path) -> tuple[int, ...]:
    """Likewise of a file of mattes or label maps; all frames if it is the user's own.

    Args:
      source: PLACE/sequences/SEQ/alpha_maps/cam_SERIAL.mp4, or its like.
    """
    sequence, place = source.parents[1].name, source.parents[3]
    kind = _KINDS[source.parent.name]
    record = place / PREPARATION / kind / sequence / f"{source.stem}.json"
    is_own = source.is_symlink() or not record.exists()
    return ALL_FRAMES if is_own else read_strides(record)


def report_unmade(
    unmade: Mapping[Path, tuple[int, ...]], kind: str, stride: int, out: Findings
) -> None:
    """Says that files were made for other frames than those that are used.

    Args:
      unmade: strides of such files.
      kind: "alpha" or "labels".
      stride: of the frames that are used.
      out: gets a problem for mattes, of which no frame may lack; else a note.
    """
    if not unmade:
        return
    first, strides = next(iter(unmade.items()))
    others = [path for path in unmade if path != first]
    also = f", like {count_things(others, 'other file')}," if others else ""
    again = (
        "the experiments/prepare.py command that made them, with "
        f"--capture.frame-stride {stride}"
    )
    made = " and ".join(map(_say_frames, strides)) or "nothing that was finished"
    if kind == "labels":
        out.notes.append(
            f"The label maps in {first}{also} are of {made}: other frames have none "
            f"(make them by {again})."
        )
        return
    ways = [f"make the others by {again}"]
    ways += [f"pass --capture.frame-stride {s}" for s in strides[:1]]
    out.problems.append(
        f"the mattes in {first}{also} are of {made}, but {_say_frames(stride)} is "
        f"used: {', or '.join(ways)}, or --capture.no-mattes to use none at all."
    )


def _say_frames(stride: int) -> str:
    return "every frame" if stride == 1 else f"one frame in {stride}"
