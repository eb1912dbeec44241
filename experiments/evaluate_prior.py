"""Measures a head model on unseen heads: `python experiments/evaluate_prior.py`."""

import dataclasses
import time
from pathlib import Path

import numpy as np

from npga_jax.app import cli
from npga_jax.core import InputError, check_writable, runtime, write_json

_HELD_OUT_SEED = 77_001
"""Of people and expressions that no training draws."""


@dataclasses.dataclass(frozen=True)
class EvaluatePriorConfig:
    """Fit held-out people with held-out expressions from noisy clouds."""

    scans: Path
    """ICT-FaceKit's .npz: people and expressions are drawn from it."""
    prior: Path | None = None
    """Head model; default: the packaged one."""
    identities: int = 10
    """People."""
    expressions: int = 2
    """Expressions of each."""
    points: int = 5000
    """Points of a cloud."""
    noise_mm: float = 0.3
    """Standard deviation of the noise on each coordinate."""
    outliers: float = 0.02
    """Share of points that are 15 mm off."""
    pictures: Path | None = None
    """Folder for pictures of truth and fit; default: none."""
    json: Path | None = None
    """Where the figures go as JSON."""
    seed: int = 0
    """Of people, expressions and noise."""


def main(cfg: EvaluatePriorConfig) -> None:
    runtime.configure()
    from npga_jax.prior import (
        NARROW_FACE_VERTICES,
        CloudSettings,
        fit_held_out,
        ict_scans,
        load_ict,
        write_picture,
    )
    from npga_jax.tracking import open_prior

    for name in ("identities", "expressions", "points"):
        if getattr(cfg, name) < 1:
            raise InputError(f"--{name} is {getattr(cfg, name)}; give 1 or more.")
    if not (0 <= cfg.noise_mm < 100 and 0 <= cfg.outliers < 1):
        raise InputError(
            f"--noise-mm {cfg.noise_mm} and --outliers {cfg.outliers}: expected 0 to "
            "100 millimetres, and a share from 0 to 1."
        )
    if cfg.seed < 0:
        raise InputError(f"--seed is {cfg.seed}; give 0 or more.")
    for target in (cfg.json and cfg.json.parent, cfg.pictures):
        if target is not None:
            check_writable(target)
            target.mkdir(parents=True, exist_ok=True)
    loaded = open_prior(cfg.prior)
    scans = ict_scans(
        load_ict(cfg.scans),
        num_identities=cfg.identities,
        expressions_per_identity=cfg.expressions,
        seed=_HELD_OUT_SEED + cfg.seed,
    )
    # The face comes first in ICT's order, and none of its narrow part is cut off.
    face = np.arange(len(scans.mean)) < NARROW_FACE_VERTICES.stop
    settings = CloudSettings(cfg.points, cfg.noise_mm, cfg.outliers)
    print(
        f"{cfg.identities} people x {cfg.expressions} expressions, {cfg.points} points "
        f"each, noise {cfg.noise_mm} mm, {cfg.outliers:.0%} outliers of 15 mm\n"
        "person scan  median mm  95 % mm  mean head mm  normals"
    )
    fits, began = [], time.perf_counter()
    for scan in np.flatnonzero(~scans.is_neutral).tolist():
        fit, unknowns = fit_held_out(loaded, scans, scan, settings, face, cfg.seed)
        fits.append(fit)
        print(
            f"{fit.identity:6d} {fit.scan:4d}  {fit.median_mm:9.3f}  {fit.p95_mm:7.2f}"
            f"  {fit.mean_head_mm:12.2f}  {fit.normal_consistency:7.4f}",
            flush=True,
        )
        if cfg.pictures is not None:
            path = cfg.pictures / f"{scan:05d}.png"
            write_picture(path, loaded, scans, scan, unknowns)
    medians = [fit.median_mm for fit in fits]
    p95 = [fit.p95_mm for fit in fits]
    totals = {
        "median_mm": float(np.median(medians)),
        "worst_median_mm": float(np.max(medians)),
        "p95_mm": float(np.median(p95)),
        "worst_p95_mm": float(np.max(p95)),
        "normal_consistency": float(np.mean([f.normal_consistency for f in fits])),
        "seconds_per_scan": (time.perf_counter() - began) / len(fits),
    }
    print("   ".join(f"{name} {value:.3f}" for name, value in totals.items()))
    if cfg.json is not None:
        write_json(cfg.json, {**totals, "scans": [fit._asdict() for fit in fits]})


if __name__ == "__main__":
    cli.run(main, EvaluatePriorConfig)
