"""Compares codes of a video with a synthetic capture's true face, in millimetres."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from evaluate_tracking import jitter
from true_surface import check_sequence, load_truth, narrow_face

from npga_jax.app import cli
from npga_jax.core import InputError, check_writable, runtime, write_json

_ROUNDS = 8
"""Of aligning to the nearest points of the surface."""
_PART = 4
"""Every so many vertices are aligned."""


@dataclasses.dataclass(frozen=True)
class EvaluateVideoConfig:
    """Distance of the true face from the surface of codes, aligned frame by frame.

    One camera does not say how far away and how large a head is, so each frame is moved
    rigidly first. Only for captures that were rendered from ICT-FaceKit and say how
    (ground_truth/truth.npz).
    """

    codes: Path
    """nphm.npz that experiments/track.py --video wrote."""
    capture: Path
    """Folder of the subject; has ground_truth/truth.npz."""
    scans: Path
    """ICT-FaceKit's .npz."""
    sequence: str
    """That the video shows."""
    prior: Path | None = None
    """Head model that the codes belong to; default: the packaged one."""
    json: Path | None = None
    """Where the figures go; default: evaluation.json beside the codes."""


def main(cfg: EvaluateVideoConfig) -> None:
    runtime.configure()
    from npga_jax.data import load_driving
    from npga_jax.prior import load_ict
    from npga_jax.tracking import load_identity, model_name, open_prior

    if not cfg.codes.is_file():
        raise InputError(f"there are no codes at {cfg.codes}; give an nphm.npz.")
    target = cfg.json or cfg.codes.parent / "evaluation.json"
    check_writable(target.parent)
    loaded = open_prior(cfg.prior)
    truth, ict = load_truth(cfg.capture), load_ict(cfg.scans)
    check_sequence(truth, cfg.capture, cfg.sequence)
    track, weights = load_driving(cfg.codes), truth[f"{cfg.sequence}/weights"]
    if track.model != model_name(loaded):
        raise InputError(
            f"{cfg.codes} belongs to the model '{track.model}'; give it with --prior."
        )
    if track.frame_id.max() >= len(weights):
        raise InputError(
            f"{cfg.codes} has frames beyond the {len(weights)} of {cfg.sequence}."
        )
    geo = load_identity(cfg.codes, loaded)
    true = narrow_face(ict, truth["identity"], weights[track.frame_id])
    found, moved = zip(
        *(
            aligned(loaded.model, own, geo, expr)
            for own, expr in zip(true, track.expr, strict=True)
        ),
        strict=True,
    )
    error = np.linalg.norm(np.stack(found) - np.stack(moved), axis=-1)
    figures: dict[str, Any] = {
        "num_frames": len(error),
        "median_mm": float(np.median(error)),
        "p95_mm": float(np.quantile(error, 0.95)),
        "worst_frame_median_mm": float(np.median(error, axis=1).max()),
    }
    if len(error) > 2 and np.ptp(track.frame_id) == len(error) - 1:
        ours, theirs = (jitter(np.stack(x) / 1000) for x in (found, moved))
        figures["jitter_ratio"] = float(np.median(ours) / np.median(theirs))
    print("   ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    write_json(target, figures)
    print(f"wrote {target}")


def aligned(
    model: Any, vertices: np.ndarray, geo: np.ndarray, expr: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A true face's nearest points on a head, and the face moved there: [V, 3] mm."""
    from npga_jax.core import rigid_motion
    from npga_jax.nphm import MILLIMETRES_PER_UNIT, Codes, project_to_surface
    from npga_jax.prior import to_nphm

    points = to_nphm(vertices.astype(np.float32)).astype(np.float64)
    codes = Codes(geo, np.zeros(model.cfg.lat_dim_app, np.float32), expr)
    rotation, shift = np.eye(3), np.zeros(3)
    some = points[::_PART]
    for _ in range(_ROUNDS):
        near = project_to_surface(model, some @ rotation.T + shift, codes)
        rotation, shift = rigid_motion(some, near.points.astype(np.float64))
    moved = points @ rotation.T + shift
    near = project_to_surface(model, moved, codes)
    return near.points * MILLIMETRES_PER_UNIT, moved * MILLIMETRES_PER_UNIT


if __name__ == "__main__":
    cli.run(main, EvaluateVideoConfig)
