"""What a training ends with: fits of people that it has not seen."""

import dataclasses
from pathlib import Path

import numpy as np

from npga_jax.core import write_json
from npga_jax.io import portrait_camera, render_mesh, write_png
from npga_jax.nphm import head_mesh
from npga_jax.prior.heldout import CloudSettings, ScanFit, codes_of, fit_held_out
from npga_jax.prior.scans import FACE, RegisteredScans
from npga_jax.tracking import LoadedPrior, Unknowns

_TILE = (360, 440)
_RESOLUTION = 192


def select_people(scans: RegisteredScans, people: np.ndarray) -> RegisteredScans:
    """The scans of some people alone, renumbered from 0 in the order given."""
    rows = np.flatnonzero(np.isin(scans.identity_of, people))
    number = np.full(scans.num_identities, -1, np.int32)
    number[people] = np.arange(len(people))
    return dataclasses.replace(
        scans,
        mean=scans.neutral_fn(people).mean(axis=0),
        identity_of=number[scans.identity_of[rows]],
        is_neutral=scans.is_neutral[rows],
        posed_fn=lambda index: scans.posed_fn(rows[index]),
        neutral_fn=lambda index: scans.neutral_fn(people[index]),
    )


def write_picture(
    path: Path,
    loaded: LoadedPrior,
    scans: RegisteredScans,
    scan: int,
    unknowns: Unknowns,
) -> None:
    """The true head and the fitted one, each from the front and from the side."""
    truth = scans.posed_fn(np.array([scan]))[0]
    codes = codes_of(loaded, unknowns.geo, unknowns.exp[0])
    fitted = head_mesh(loaded.model, codes, posed=True, resolution=_RESOLUTION)
    width, height = _TILE
    tiles = []
    for vertices, faces in ((truth, scans.faces), (fitted.vertices, fitted.faces)):
        for azimuth in (0, 60):
            viewmat, intrinsics = portrait_camera(truth, azimuth, width, height)
            picture = render_mesh(
                vertices,
                faces,
                viewmat=viewmat,
                K=intrinsics,
                width=width,
                height=height,
            )
            tiles.append(picture.rgb)
    write_png(path, np.concatenate(tiles, axis=1))


def validate(
    loaded: LoadedPrior, scans: RegisteredScans, count: int, folder: Path
) -> list[ScanFit]:
    """Fits some held-out scans from noisy clouds.

    Writes <folder>/validation.json and <folder>/fits/*.png.

    Args:
      scans: of people that the training has not seen.
      count: how many scans, spread over them; those with expressions.

    Returns:
      The fits; none if all scans are neutral.
    """
    posed = np.flatnonzero(~scans.is_neutral)
    chosen = posed[np.linspace(0, len(posed) - 1, min(count, len(posed))).astype(int)]
    face = scans.vertex_regions == FACE
    fits = []
    for scan in chosen:
        fit, unknowns = fit_held_out(loaded, scans, scan, CloudSettings(), face, seed=0)
        fits.append(fit)
        write_picture(
            folder / "fits" / f"{scan:05d}.png", loaded, scans, scan, unknowns
        )
    report = {**_totals(fits), "scans": [fit._asdict() for fit in fits]}
    write_json(folder / "validation.json", report)
    return fits


def _totals(fits: list[ScanFit]) -> dict[str, float | None]:
    """Over all fits; None, which JSON can say, where there are none."""
    measures = {
        "median_mm": np.median,
        "p95_mm": np.median,
        "normal_consistency": np.mean,
    }
    return {
        name: float(measure([getattr(fit, name) for fit in fits])) if fits else None
        for name, measure in measures.items()
    }
