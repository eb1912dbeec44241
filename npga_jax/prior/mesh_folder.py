"""A folder of registered meshes as a source of scans.

    FOLDER/scans.json                 frame and regions, see below
    FOLDER/PERSON/neutral.ply         mouth closed (.obj too)
    FOLDER/PERSON/ANY_NAME.ply        expressions of that person

All files have the same vertices in the same order and the same triangles. scans.json:
`metres_per_unit` (required), `origin` [3] (the point, in the files' units, that becomes
NPHM's origin; default 0), `outer` (lists of [first, last] vertices that are not the
face: back of the head, ears, neck), `eyes` (the same for eyeballs), `source` (a line on
provenance and licence). Axes: +x the subject's left, +y up, +z out of the face.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from npga_jax.core import InputError
from npga_jax.io import read_mesh
from npga_jax.nphm import METRES_PER_UNIT
from npga_jax.prior.scans import EYES, FACE, OUTER, RegisteredScans

SETTINGS = "scans.json"
_SUFFIXES = (".ply", ".obj")
_MOST_BYTES = 8 * 2**30


def load_mesh_folder(folder: Path) -> RegisteredScans:
    """Reads all meshes of a folder into memory.

    Raises:
      InputError: the folder, its settings or a mesh cannot be used; meshes differ in
        topology; a person lacks a neutral mesh; or there is too much to hold.
    """
    settings = _read_settings(folder)
    people = sorted(p for p in folder.iterdir() if p.is_dir())
    files: list[Path] = []
    identity_of: list[int] = []
    for person in people:
        meshes = sorted(p for p in person.iterdir() if p.suffix.lower() in _SUFFIXES)
        neutral = [p for p in meshes if p.stem == "neutral"]
        if len(neutral) != 1:
            raise InputError(
                f"{person} has {len(neutral)} neutral meshes; expected one, called "
                "neutral.ply or neutral.obj."
            )
        own = [*neutral, *(p for p in meshes if p.stem != "neutral")]
        identity_of += [len(set(identity_of))] * len(own)
        files += own
    if len(people) < 2:
        raise InputError(
            f"{folder} has {len(people)} folders of people; expected two or more, each "
            "with neutral.ply and meshes of expressions."
        )
    first = read_mesh(files[0])
    if len(files) * first.vertices.nbytes > _MOST_BYTES:
        raise InputError(
            f"{folder}: {len(files)} meshes of {len(first.vertices)} vertices are "
            f"more than {_MOST_BYTES / 2**30:.0f} GiB; use fewer, or coarser ones."
        )
    scale = settings["metres_per_unit"] / METRES_PER_UNIT
    vertices = np.empty((len(files), *first.vertices.shape), np.float32)
    for i, path in enumerate(files):
        mesh = read_mesh(path)
        if not np.array_equal(mesh.faces, first.faces):
            raise InputError(
                f"{path} has other triangles than {files[0]}; registered meshes have "
                "the same vertices in the same order."
            )
        if len(mesh.vertices) != len(first.vertices):
            raise InputError(
                f"{path} has {len(mesh.vertices)} vertices, {files[0]} has "
                f"{len(first.vertices)}; registered meshes have as many."
            )
        vertices[i] = (mesh.vertices - settings["origin"]) * scale
    owner = np.array(identity_of, np.int32)
    is_neutral = np.array([p.stem == "neutral" for p in files])
    neutral = vertices[is_neutral]
    return RegisteredScans(
        faces=first.faces,
        vertex_regions=_regions(settings, len(first.vertices), folder),
        mean=neutral.mean(axis=0),
        identity_of=owner,
        is_neutral=is_neutral,
        posed_fn=lambda scans: vertices[scans],
        neutral_fn=lambda persons: neutral[persons],
        source=settings["source"],
    )


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS
    try:
        given = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(
            f"{folder} has no {SETTINGS}, which says at least "
            '{"metres_per_unit": 0.001} for meshes in millimetres.'
        ) from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}).") from error
    if not isinstance(given, dict):
        raise InputError(f"{path} is not a JSON object with metres_per_unit.")
    for name in ("outer", "eyes"):
        if not isinstance(given.get(name, []), list):
            raise InputError(f"{path}: {name} is {given[name]!r}; expected a list.")
    unknown = given.keys() - {"metres_per_unit", "origin", "outer", "eyes", "source"}
    if unknown:
        raise InputError(f"{path} has unknown entries {', '.join(sorted(unknown))}.")
    scale, origin = given.get("metres_per_unit"), given.get("origin", [0, 0, 0])
    try:
        numbers = np.array([scale, *origin], np.float64)
    except (TypeError, ValueError):
        numbers = np.full(4, np.nan)
    if numbers.shape != (4,) or not np.isfinite(numbers).all() or numbers[0] <= 0:
        raise InputError(
            f"{path}: metres_per_unit is {scale!r} and origin {origin!r}; expected a "
            "number above 0 and three numbers."
        )
    return {
        "metres_per_unit": float(numbers[0]),
        "origin": numbers[1:],
        "outer": given.get("outer", []),
        "eyes": given.get("eyes", []),
        "source": str(given.get("source", f"registered meshes of {folder.name}")),
    }


def _regions(settings: dict[str, Any], count: int, folder: Path) -> np.ndarray:
    regions = np.full(count, FACE, np.int8)
    for name, region in (("outer", OUTER), ("eyes", EYES)):
        for span in settings[name]:
            good = isinstance(span, list) and len(span) == 2
            good = good and all(type(i) is int for i in span)
            if not good or not 0 <= span[0] <= span[1] < count:
                raise InputError(
                    f"{folder / SETTINGS}: {name} has {span!r}; expected [first, last] "
                    f"of vertices 0 to {count - 1}."
                )
            regions[span[0] : span[1] + 1] = region
    if not (regions == FACE).any():
        raise InputError(f"{folder / SETTINGS} leaves no vertex to the face.")
    return regions
