"""Compares tracked codes with a synthetic capture's true surface, in millimetres."""

import dataclasses
from pathlib import Path

import numpy as np
from canonical_drift import canonical_truth, drift_of
from true_surface import check_sequence, load_truth, true_surface

from npga_jax.app import cli
from npga_jax.core import InputError, check_writable, runtime, write_json

_MM_PER_METRE = 1000.0


@dataclasses.dataclass(frozen=True)
class EvaluateTrackingConfig:
    """Distance between the surface of tracked codes and the true one, frame by frame.

    Only for captures that were rendered from ICT-FaceKit and say how
    (ground_truth/truth.npz).
    """

    tracking: Path
    """nphm.npz of a sequence, or the folder that experiments/track.py wrote."""
    capture: Path
    """Folder of the subject; has ground_truth/truth.npz."""
    scans: Path
    """ICT-FaceKit's .npz."""
    prior: Path | None = None
    """Head model that the codes belong to; default: the packaged one."""
    sequence: str = ""
    """Sequence of a single file; default: the name of the folder it is in."""
    json: Path | None = None
    """Where the figures go; default: evaluation.json beside the codes."""
    picture: Path | None = None
    """Where the picture goes; default: evaluation.png beside the codes."""


def main(cfg: EvaluateTrackingConfig) -> None:
    runtime.configure()
    from npga_jax.prior import load_ict
    from npga_jax.tracking import model_name, open_prior

    files = find_files(cfg)
    folder = cfg.tracking if cfg.tracking.is_dir() else cfg.tracking.parent
    target = cfg.json or folder / "evaluation.json"
    picture = cfg.picture or folder / "evaluation.png"
    for path in (target, picture):
        check_writable(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
    loaded = open_prior(cfg.prior)
    truth = load_truth(cfg.capture)
    ict = load_ict(cfg.scans)
    results, errors, places = {}, [], {}
    print("sequence                      frames  median mm  95 % mm  jitter / truth's")
    for sequence, path in files.items():
        check_sequence(truth, cfg.capture, sequence)
        result, error = evaluate_sequence(
            path, sequence, truth, ict, loaded, model_name(loaded)
        )
        results[sequence] = result
        errors.append(error)
        places.update(canonical_truth(path, sequence, truth, ict, loaded))
        print(
            f"{sequence:<28}  {len(result['frames']):6d}  {result['median_mm']:9.3f}  "
            f"{result['p95_mm']:7.2f}  {result['jitter_ratio']:16.2f}",
            flush=True,
        )
    frames = [f for r in results.values() for f in r["frames"]]
    ours = np.concatenate([r.pop("jitter_mm") for r in results.values()])
    theirs = np.concatenate([r.pop("true_jitter_mm") for r in results.values()])
    shaking = np.concatenate([r.pop("error_jitter_mm") for r in results.values()])
    totals = {
        "num_frames": len(frames),
        "median_mm": float(np.median(np.concatenate(errors))),
        "p95_mm": float(np.quantile(np.concatenate(errors), 0.95)),
        "worst_frame_median_mm": max(f["median_mm"] for f in frames),
        "jitter_mm": float(np.median(ours)),
        "true_jitter_mm": float(np.median(theirs)),
        "jitter_ratio": float(np.median(ours) / np.median(theirs)),
        # Of the error alone, which true motion does not hide.
        "error_jitter_mm": float(np.median(shaking)),
    }
    print("   ".join(f"{k} {v:.3f}" for k, v in totals.items()))
    drift = drift_of(places, truth, ict)
    print(f"drift of the true face in canonical space: {drift}")
    write_json(target, {**totals, "canonical_drift": drift, "sequences": results})
    mean_error = np.mean(np.concatenate(errors), axis=0)
    write_picture(picture, ict, truth["identity"], mean_error, frames)
    print(f"wrote {target} and {picture}")


def find_files(cfg: EvaluateTrackingConfig) -> dict[str, Path]:
    """Files of codes by sequence."""
    if cfg.tracking.is_dir():
        files = sorted(cfg.tracking.glob("*/tracking/nphm.npz"))
        if not files:
            raise InputError(
                f"{cfg.tracking} has no SEQ/tracking/nphm.npz; give what "
                "experiments/track.py wrote."
            )
        return {path.parent.parent.name: path for path in files}
    if not cfg.tracking.is_file():
        raise InputError(f"there is no tracking at {cfg.tracking}.")
    name = cfg.sequence or cfg.tracking.resolve().parent.parent.name
    return {name: cfg.tracking}


def evaluate_sequence(path, sequence, truth, ict, loaded, name):
    """Per-frame errors and jitter; also the errors [T, V] in millimetres."""
    from npga_jax.data import load_driving
    from npga_jax.nphm import METRES_PER_UNIT, Codes, project_to_surface
    from npga_jax.tracking import load_identity, similarity_from_matrix

    track = load_driving(path)
    if track.model != name:
        raise InputError(
            f"{path} belongs to the model '{track.model}', not to '{name}'; give the "
            "right one with --prior."
        )
    geo = load_identity(path, loaded)
    length = len(truth[f"{sequence}/weights"])
    if track.frame_id.max() >= length:
        raise InputError(f"{path} has frames beyond the {length} of {sequence}.")
    if len(track.frame_id) < 3 or np.ptp(track.frame_id) != len(track.frame_id) - 1:
        raise InputError(
            f"{path} has frames {track.frame_id.tolist()}; jitter needs three or more "
            "without a gap."
        )
    frames, surfaces, tracked, errors = [], [], [], []
    for row, frame in enumerate(track.frame_id):
        surface = true_surface(truth, ict, sequence, int(frame))
        pose = similarity_from_matrix(track.world_from_head[row])
        app = np.zeros(loaded.model.cfg.lat_dim_app, np.float32)
        codes = Codes(geo=geo, app=app, exp=track.expr[row])
        near = project_to_surface(loaded.model, pose.to_head(surface), codes)
        matrix = pose.matrix()
        found = near.points * METRES_PER_UNIT @ matrix[:3, :3].T + matrix[:3, 3]
        error = np.linalg.norm(found - surface, axis=-1) * _MM_PER_METRE
        surfaces.append(surface)
        tracked.append(found)
        errors.append(error)
        frames.append(
            {
                "sequence": sequence,
                "frame_id": int(frame),
                "median_mm": float(np.median(error)),
                "p95_mm": float(np.quantile(error, 0.95)),
            }
        )
    ours, theirs = jitter(np.stack(tracked)), jitter(np.stack(surfaces))
    return {
        "median_mm": float(np.median(errors)),
        "p95_mm": float(np.quantile(errors, 0.95)),
        "jitter_ratio": float(np.median(ours) / np.median(theirs)),
        "jitter_mm": ours,
        "true_jitter_mm": theirs,
        "error_jitter_mm": jitter(np.stack(tracked) - np.stack(surfaces)),
        "frames": frames,
    }, np.stack(errors)


def jitter(surfaces: np.ndarray) -> np.ndarray:
    """Lengths of second differences in time: [T, V, 3] metres -> [(T - 2) V] mm."""
    second = surfaces[2:] - 2 * surfaces[1:-1] + surfaces[:-2]
    return np.linalg.norm(second, axis=-1).reshape(-1) * _MM_PER_METRE


def write_picture(path: Path, ict, identity, mean_error, frames) -> None:
    """Mean error on the face (blue 0, red 2 mm), and a bar for every frame."""
    from npga_jax.io import error_colors, portrait_camera, render_mesh, write_png
    from npga_jax.prior import NARROW_FACE_VERTICES, compact_mesh, to_nphm

    rest = np.zeros((1, len(ict.expression)), np.float32)
    head = to_nphm(ict.vertices(identity[None].astype(np.float32), rest)[0])
    keep = np.zeros(len(head), bool)
    keep[NARROW_FACE_VERTICES] = True
    faces, used = compact_mesh(ict.faces, keep)
    colors = error_colors(mean_error[used], 2.0)
    tiles = []
    for azimuth in (0, 60):
        viewmat, intrinsics = portrait_camera(head[used], azimuth, 360, 440)
        tiles.append(
            render_mesh(
                head[used],
                faces,
                colors=colors,
                viewmat=viewmat,
                K=intrinsics,
                width=360,
                height=440,
            ).rgb
        )
    top = np.concatenate(tiles, axis=1)
    chart = np.full((160, top.shape[1], 3), 255, np.uint8)
    width = max(chart.shape[1] // len(frames), 1)
    for i, frame in enumerate(frames[: chart.shape[1] // width]):
        height = int(min(frame["median_mm"] / 2.0, 1.0) * 150)
        chart[160 - height :, i * width : (i + 1) * width - (width > 2)] = [60, 90, 220]
    chart[160 - 75] = [220, 40, 30]  # One millimetre.
    write_png(path, np.concatenate([top, chart], axis=0))


if __name__ == "__main__":
    cli.run(main, EvaluateTrackingConfig)
