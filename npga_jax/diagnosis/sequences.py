"""Whether what is held out was held out."""

import numpy as np

from npga_jax.core import InputError
from npga_jax.data import Capture, Timestep, find_sequence, holdout_split
from npga_jax.diagnosis.findings import Diagnosis

_SAME = 0.25
"""Of the change within a sequence: two sequences that differ by less are one."""
_MIN_CHANGE = 0.5
"""Levels, of 255, that a sequence has to change by: of stills nothing can be told."""
_ALIKE = 4.0
"""Levels that first frames may differ by for more of them to be looked at."""
_MIN_ROWS = 2
"""Driving codes that two sequences have to share."""


def diagnose_held_out(capture: Capture) -> list[Diagnosis]:
    """Says so if the held-out sequence or camera is not there, or was trained on.

    Frames of one camera are compared, and driving codes where there are any. Which
    ones are held out is what the capture was opened with (`capture.settings`).

    Raises:
      InputError: if a frame cannot be read.
    """
    cfg = capture.settings
    try:
        holdout_split(capture, cfg.held_out_sequence, cfg.held_out_camera)
    except InputError as error:
        return [
            Diagnosis(
                "what is to be held out cannot be",
                "certain",
                str(error).rstrip("."),
                "name one sequence with --capture.held-out-sequence and one camera "
                "with --capture.held-out-camera, of those that there are",
            )
        ]
    if not cfg.held_out_sequence:  # None, on purpose.
        return []
    held_out = find_sequence(capture.sequences, cfg.held_out_sequence)
    found = []
    for sequence in capture.sequences:
        if sequence == held_out:
            continue
        said = _same_frames(capture, held_out, sequence)
        said = said or _same_codes(capture, held_out, sequence)
        found += [said] if said else []
    return found


def _same_frames(capture: Capture, first: str, second: str) -> Diagnosis | None:
    """Compares first frames; where they look alike, two more that move."""
    pairs = _pairs(capture, first, second)
    if not pairs:
        return None
    images = [[_image(capture, t) for t in pairs[0]]]
    if _apart(*images[0]) > _ALIKE:
        return None
    images += [[_image(capture, t) for t in pair] for pair in pairs[1:]]
    change = float(np.mean([_apart(a, images[0][0]) for a, _ in images[1:] or images]))
    apart = float(np.mean([_apart(a, b) for a, b in images]))
    if change < _MIN_CHANGE or apart > _SAME * change:
        return None
    return Diagnosis(
        f"{second} is the held-out sequence {first} under another name",
        "certain",
        f"camera {capture.cameras[0]} shows the same: frames of both differ by "
        f"{apart:.1f} levels of 255, those of one moment and another by {change:.1f}",
        f"take one of them away, or pass --capture.ignore-sequences {second}",
    )


def _same_codes(capture: Capture, first: str, second: str) -> Diagnosis | None:
    codes = [
        np.array(
            [
                capture.driving(t).expr
                for t in capture.timesteps
                if t.sequence == sequence and capture.has_driving(t)
            ]
        )
        for sequence in (first, second)
    ]
    if not len(codes[0]) or not len(codes[1]):
        return None
    # Frames at rest may have one code, and so may any whose codes are clipped.
    held_out, other = (np.unique(rows[rows.any(1)], axis=0) for rows in codes)
    if not len(held_out) or not len(other):
        return None
    tolerance = 1e-6 * max(float(np.abs(held_out).max()), 1e-12)
    nearest = [np.abs(other - row).max(1).min() for row in held_out]
    same = int((np.array(nearest) <= tolerance).sum())
    if same < _MIN_ROWS:
        return None
    return Diagnosis(
        f"{second} has frames of the held-out sequence {first}",
        "likely",
        f"{same} of {len(held_out)} different driving codes of {first} are in {second} "
        "as well, number for number",
        f"take those frames out of one of them, or pass --capture.ignore-sequences "
        f"{second}",
    )


def _pairs(
    capture: Capture, first: str, second: str
) -> list[tuple[Timestep, Timestep]]:
    """The same frames of two sequences: the first one, one amid, the last one."""
    frames = [
        {t.frame_id: t for t in capture.timesteps if t.sequence == sequence}
        for sequence in (first, second)
    ]
    common = sorted(frames[0].keys() & frames[1].keys())
    if not common:
        return []
    chosen = dict.fromkeys((common[0], common[len(common) // 2], common[-1]))
    return [(frames[0][i], frames[1][i]) for i in chosen]


def _image(capture: Capture, timestep: Timestep) -> np.ndarray:
    return capture.rgb(timestep, capture.cameras[0]).astype(np.float32)


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference of two images in levels."""
    return float(np.abs(a - b).mean())
