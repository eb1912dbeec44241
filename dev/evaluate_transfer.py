"""Measures, in millimetres, how one person's expressions arrive on another's face."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from true_surface import (
    METRES_PER_CM,
    check_sequence,
    load_truth,
    narrow_face,
    true_surface,
)

from npga_jax.app import cli
from npga_jax.core import InputError, check_writable, runtime, write_json
from npga_jax.data import CaptureConfig
from npga_jax.training import TrainConfig

_MM = 1000.0
_MOVING_MM = 2.0
_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclasses.dataclass(frozen=True)
class EvaluateTransferConfig:
    """Distance between a driven face and the true one with the driver's expression.

    Only for captures that were rendered from ICT-FaceKit and say how
    (ground_truth/truth.npz): there the driver's true weights on the target's true
    identity say what should come out.
    """

    target_capture: Path
    """Folder of the subject whose face is driven."""
    driver_capture: Path
    """Folder of the subject who drives; may be the same."""
    scans: Path
    """ICT-FaceKit's .npz."""
    sequence: str = "FREE"
    """The driver's sequence, by name or prefix."""
    blendshapes: str = "blendshapes"
    """Name of the classical tracker's driving files, for comparison."""
    prior: Path | None = None
    """Head model that the codes belong to; default: the packaged one."""
    json: Path | None = None
    """Where the figures go; default: transfer_<driver>_<sequence>.json in
    runs/<target>."""
    capture: CaptureConfig = CaptureConfig(driving="nphm")


class Codes(NamedTuple):
    """What two trackers say of the same frames."""

    frame_id: np.ndarray  # [T]
    nphm: np.ndarray  # [T, E]
    blendshapes: np.ndarray  # [T, B]


def main(cfg: EvaluateTransferConfig) -> None:
    runtime.configure()
    from npga_jax.data import find_sequence, holdout_split
    from npga_jax.distillation import (
        make_backward,
        open_person,
        pose_by_roots,
        pose_points,
    )
    from npga_jax.prior import load_ict
    from npga_jax.training import default_method

    ict, truth = load_ict(cfg.scans), load_truth(cfg.target_capture)
    driver_truth = load_truth(cfg.driver_capture)
    target, driver = (
        open_tracked(cfg, folder) for folder in (cfg.target_capture, cfg.driver_capture)
    )
    sequence = find_sequence(driver.sequences, cfg.sequence)
    check_sequence(driver_truth, cfg.driver_capture, sequence)
    path = cfg.json or Path("runs") / target.subject / (
        f"transfer_{driver.subject}_{sequence}.json"
    )
    check_writable(path.parent)
    person = open_person(target, cfg.prior)
    if person is None or driver.driving_model != target.driving_model:
        raise InputError(
            f"the codes of {target.subject} are of '{target.driving_model}' and those "
            f"of {driver.subject} of '{driver.driving_model}'; both must be of one "
            "head model: track both with experiments/track.py."
        )
    split = holdout_split(
        target, target.settings.held_out_sequence, target.settings.held_out_camera
    )
    training = [v.timestep for v in split.train]
    fitted = codes_of(cfg, target, training)
    driving = codes_of(
        cfg, driver, [t for t in driver.timesteps if t.sequence == sequence]
    )

    run_cfg = dataclasses.replace(TrainConfig(), capture=cfg.capture)
    fit = default_method(run_cfg).forward.fit
    assert fit is not None  # The default settings have an F.
    forward = fit(person, fitted.nphm, run_cfg.gaussians.feature_dim)
    backward = make_backward(person)
    canonical = canonical_points(person, target, truth, ict, training)

    def by_forward(expr):
        octaves = run_cfg.forward.octaves
        return np.asarray(pose_points(forward, canonical, expr, octaves=octaves))

    def by_roots(expr):
        return pose_by_roots(backward, canonical, expr, by_forward(expr))

    tracked, _ = by_roots(fitted.nphm)
    groups = np.array([t.sequence for t in training])
    posed, valid = by_roots(driving.nphm)
    linear, ridge = fit_linear(fitted.blendshapes, tracked, groups)
    weights = driver_truth[f"{sequence}/weights"][driving.frame_id]
    true = narrow_face(ict, truth["identity"], weights) * METRES_PER_CM
    rest = narrow_face(ict, truth["identity"], 0 * weights[:1])[0] * METRES_PER_CM
    moving = _MM * np.linalg.norm(true - rest, axis=-1) > _MOVING_MM
    rows = {
        "the neutral head, not driven": np.broadcast_to(canonical, true.shape),
        "head model's codes, posed by F": by_forward(driving.nphm),
        "head model's codes, posed by Broyden's roots": posed,
        "blendshape codes, linear map": linear(driving.blendshapes),
    }
    results = {name: measure(found, true, moving) for name, found in rows.items()}
    print(
        f"{driver.subject} drives {target.subject}: {len(true)} frames of {sequence}, "
        f"{true.shape[1]} vertices of the face, after the best rigid alignment of "
        f"each frame; roots found for {100 * valid.mean():.1f} % of the points"
    )
    width = max(map(len, rows))
    print(f"{'millimetres':<{width}}  median   95 %  median where it moves > 2 mm")
    for name, result in results.items():
        print(
            f"{name:<{width}}  {result['median_mm']:6.2f}  {result['p95_mm']:5.2f}  "
            f"{result['moving_median_mm']:6.2f}"
        )
    figures = {
        "target": target.subject,
        "driver": driver.subject,
        "sequence": sequence,
        "model": target.driving_model,
        "num_frames": len(true),
        "num_vertices": true.shape[1],
        "moving_share": float(moving.mean()),
        "roots_found": float(valid.mean()),
        "ridge": ridge,
        "methods": results,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, figures)
    print(f"wrote {path}")


def open_tracked(cfg: EvaluateTransferConfig, folder: Path) -> Any:
    """A capture with the head tracker's codes; no video is decoded."""
    from npga_jax.data import open_capture

    folder = folder.resolve()
    return open_capture(
        folder.name, folder.parent, cfg.capture, progress=False, decode=False
    )


def codes_of(cfg: EvaluateTransferConfig, capture: Any, timesteps: list) -> Codes:
    """The head tracker's and the classical tracker's codes of some timesteps."""
    from npga_jax.data import list_driving_files, load_driving

    files, rows = {}, []
    for timestep in timesteps:
        sequence, frame = timestep.sequence, timestep.frame_id
        if sequence not in files:
            found = list_driving_files(capture.root, sequence, cfg.capture.cache_dir)
            if cfg.blendshapes not in found:
                raise InputError(
                    f"{sequence} of {capture.subject} has no {cfg.blendshapes}.npz to "
                    f"compare with; there are {', '.join(found) or 'none'}: name one "
                    "with --blendshapes."
                )
            files[sequence] = load_driving(found[cfg.blendshapes])
        row = np.flatnonzero(files[sequence].frame_id == frame)
        if not len(row):
            raise InputError(
                f"{cfg.blendshapes}.npz of {sequence} of {capture.subject} has no code "
                f"for frame {frame}; track that frame, or leave the sequence out with "
                "--capture.ignore-sequences."
            )
        rows.append(files[sequence].expr[row[0]])
    return Codes(
        np.array([t.frame_id for t in timesteps]),
        np.stack([capture.driving(t).expr for t in timesteps]),
        np.stack(rows),
    )


def canonical_points(person, target, truth, ict, timesteps: list) -> np.ndarray:
    """Where the true vertices lie in canonical space: [V, 3] metres.

    The truth of one training frame, the most neutral, tells which point of the tracked
    surface is which vertex; positions are those of the tracked surface.
    """
    from npga_jax.core import most_neutral_row
    from npga_jax.distillation import canonicalize
    from npga_jax.nphm import METRES_PER_UNIT, project_to_surface
    from npga_jax.tracking import similarity_from_matrix

    expr = np.stack([target.driving(t).expr for t in timesteps])
    timestep = timesteps[most_neutral_row(expr)]
    check_sequence(truth, target.root, timestep.sequence)
    driving = target.driving(timestep)
    surface = true_surface(truth, ict, timestep.sequence, timestep.frame_id)
    near = project_to_surface(
        person.model,
        similarity_from_matrix(driving.world_from_head).to_head(surface),
        person.codes(driving.expr),
    )
    return canonicalize(person, near.points * METRES_PER_UNIT, driving.expr)[0]


def fit_linear(codes: np.ndarray, points: np.ndarray, groups: np.ndarray):
    """The linear map from codes to points: what blendshape driving would learn.

    The weight of its ridge is the one that does best on sequences left out in turn.

    Args:
      codes: [T, B].
      points: [T, V, 3] that the codes go with.
      groups: [T] sequence of each frame.

    Returns:
      The map, codes [S, B] -> points [S, V, 3]; and the weight of the ridge.
    """
    shape, flat = points.shape[1:], points.reshape(len(points), -1)

    def solve(rows, ridge):
        mean_code, mean_points = codes[rows].mean(axis=0), flat[rows].mean(axis=0)
        inputs = codes[rows] - mean_code
        # The dual form: as many equations as frames.
        gram = inputs @ inputs.T + ridge * np.eye(len(inputs))
        basis = inputs.T @ np.linalg.solve(gram, flat[rows] - mean_points)
        return lambda c: (mean_points + (c - mean_code) @ basis).reshape(-1, *shape)

    def held_out_error(ridge):
        squared = 0.0
        for group in np.unique(groups):
            out = groups == group
            squared += np.sum((solve(~out, ridge)(codes[out]) - points[out]) ** 2)
        return squared

    ridge = _RIDGES[-1]
    if len(np.unique(groups)) > 1:
        ridge = min(_RIDGES, key=held_out_error)
    return solve(np.ones(len(codes), bool), ridge), ridge


def measure(
    found: np.ndarray, true: np.ndarray, moving: np.ndarray
) -> dict[str, float]:
    """Distances of corresponding points [T, V, 3] in millimetres, frames aligned."""
    from npga_jax.core import rigid_motion

    errors = []
    for points, goal in zip(found.astype(np.float64), true, strict=True):
        rotation, translation = rigid_motion(points, goal)
        moved = points @ rotation.T + translation
        errors.append(_MM * np.linalg.norm(moved - goal, axis=-1))
    errors = np.stack(errors)
    return {
        "median_mm": float(np.median(errors)),
        "p95_mm": float(np.quantile(errors, 0.95)),
        "moving_median_mm": float(np.median(errors[moving])) if moving.any() else 0.0,
        "worst_frame_median_mm": float(np.median(errors, axis=1).max()),
    }


if __name__ == "__main__":
    cli.run(main, EvaluateTransferConfig)
