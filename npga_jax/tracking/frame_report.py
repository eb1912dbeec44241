"""How well each frame was fitted, in millimetres."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npga_jax.core import write_json
from npga_jax.data import Timestep
from npga_jax.nphm import MILLIMETRES_PER_UNIT, Codes, HeadModel, evaluate_points
from npga_jax.tracking.alignment import Similarity
from npga_jax.tracking.equations import Unknowns
from npga_jax.tracking.gathering import Frame

_INLIER_MM = 5.0
_BAD_MEDIAN_MM = 2.5
_BAD_INLIERS = 0.6


class FrameFit(NamedTuple):
    """Distances of a frame's skin to the tracked surface, at a draw of its points."""

    sequence: str
    frame_id: int
    num_points: int  # of skin, in the cloud
    median_mm: float
    p90_mm: float
    inliers: float  # share of the points within 5 mm
    failed: bool


def frame_fits(
    model: HeadModel,
    unknowns: Unknowns,
    frames: Sequence[Frame],
    poses: Sequence[Similarity],
) -> list[FrameFit]:
    """Measures every frame, in millimetres of the world.

    Args:
      model: the head model.
      unknowns: what was fitted.
      frames: with the points to measure at.
      poses: of each frame; a pose's scale is that of the head it has found.
    """
    fits = []
    for i, (frame, pose) in enumerate(zip(frames, poses, strict=True)):
        codes = Codes(
            geo=unknowns.geo,
            app=np.zeros(model.cfg.lat_dim_app, np.float32),
            exp=unknowns.exp[i],
        )
        distance = np.abs(evaluate_points(model, pose.to_head(frame.judged), codes).sdf)
        distance = distance * MILLIMETRES_PER_UNIT * pose.scale
        median = float(np.median(distance))
        inliers = float((distance < _INLIER_MM).mean())
        fits.append(
            FrameFit(
                sequence=frame.timestep.sequence,
                frame_id=frame.timestep.frame_id,
                num_points=frame.num_points,
                median_mm=median,
                p90_mm=float(np.quantile(distance, 0.9)),
                inliers=inliers,
                failed=not (median <= _BAD_MEDIAN_MM and inliers >= _BAD_INLIERS),
            )
        )
    return fits


def write_report(
    output: Path,
    subject: str,
    model: str,
    fits: Sequence[FrameFit],
    without_cloud: Sequence[Timestep],
) -> Path:
    """Writes <output>/report.json: every frame, and the totals.

    What it says of sequences that were tracked before stays.
    """
    path = output / "report.json"
    tracked = {fit.sequence for fit in fits} | {t.sequence for t in without_cloud}
    earlier, earlier_without = _earlier(path, tracked)
    fits = [*earlier, *fits]
    medians = [fit.median_mm for fit in fits]
    value = {
        "subject": subject,
        "model": model,
        "num_frames": len(fits),
        "median_mm": float(np.median(medians)) if medians else None,
        "worst_mm": float(np.max(medians)) if medians else None,
        "failed": [f"{f.sequence} {f.frame_id}" for f in fits if f.failed],
        "without_cloud": [
            *earlier_without,
            *(f"{t.sequence} {t.frame_id}" for t in without_cloud),
        ],
        "frames": [fit._asdict() for fit in fits],
    }
    write_json(path, value)
    return path


def _earlier(path: Path, replaced: set[str]) -> tuple[list[FrameFit], list[str]]:
    """What an earlier report says of other sequences; nothing if it is damaged."""
    try:
        report = json.loads(path.read_text())
        fits = [FrameFit(**frame) for frame in report["frames"]]
        without = [str(name) for name in report["without_cloud"]]
    except (OSError, ValueError, KeyError, TypeError):
        return [], []
    return (
        [fit for fit in fits if fit.sequence not in replaced],
        [name for name in without if name.rpartition(" ")[0] not in replaced],
    )


def summary(fits: Sequence[FrameFit], without_cloud: Sequence[Timestep]) -> str:
    """What the terminal shows: a line per sequence, and warnings."""
    lines = [f"{'sequence':<28} frames  median mm  90 % mm  inliers"]
    for sequence in dict.fromkeys(fit.sequence for fit in fits):
        own = [fit for fit in fits if fit.sequence == sequence]
        median = np.median([f.median_mm for f in own])
        p90 = np.median([f.p90_mm for f in own])
        inliers = np.mean([f.inliers for f in own])
        lines.append(
            f"{sequence:<28} {len(own):6d}  {median:9.2f}  {p90:7.2f}  {inliers:7.1%}"
        )
    failed = [f"{f.sequence} {f.frame_id}" for f in fits if f.failed]
    if failed:
        lines.append(
            f"WARNING: {len(failed)} frames are not fitted well: {', '.join(failed)}"
        )
    if without_cloud:
        named = ", ".join(f"{t.sequence} {t.frame_id}" for t in without_cloud)
        lines.append(
            f"WARNING: {len(without_cloud)} frames have no usable cloud and no code: "
            f"{named}"
        )
    return "\n".join(lines)
