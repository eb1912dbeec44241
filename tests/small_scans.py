"""A tiny morphable head: an egg with a nose, linear in identity and expression."""

import json
from pathlib import Path

import numpy as np

from npga_jax.io.mesh_files import write_mesh
from npga_jax.nphm.config import MILLIMETRES_PER_UNIT
from npga_jax.prior.scans import FACE, OUTER, RegisteredScans


def egg(subdivisions: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [V, 3] and faces [F, 3] of a closed egg, symmetric at x = 0."""
    rows, columns = subdivisions, 2 * subdivisions
    polar = np.linspace(0, np.pi, rows + 1)[1:-1]
    around = np.arange(columns) * 2 * np.pi / columns
    ring = np.stack(
        [
            np.sin(polar)[:, None] * np.sin(around),
            np.broadcast_to(np.cos(polar)[:, None], (rows - 1, columns)),
            np.sin(polar)[:, None] * np.cos(around),
        ],
        axis=-1,
    ).reshape(-1, 3)
    vertices = np.concatenate([ring, [[0, 1, 0], [0, -1, 0]]]) * [0.28, 0.4, 0.3]
    nose = np.exp(-((vertices[:, 0] / 0.06) ** 2 + ((vertices[:, 1]) / 0.08) ** 2))
    vertices[:, 2] += 0.08 * nose * (vertices[:, 2] > 0)
    faces = []
    for r in range(rows - 2):
        for c in range(columns):
            a, b = r * columns + c, r * columns + (c + 1) % columns
            faces += [[a, a + columns, b], [b, a + columns, b + columns]]
    top, bottom = len(ring), len(ring) + 1
    for c in range(columns):
        n = (c + 1) % columns
        faces.append([top, c, n])
        last = (rows - 2) * columns
        faces.append([bottom, last + n, last + c])
    return vertices.astype(np.float32), np.array(faces, np.int32)


def small_scans(
    num_identities: int = 6, expressions: int = 3, seed: int = 0
) -> RegisteredScans:
    """People who are wider, taller or have longer noses, and open their mouths."""
    mean, faces = egg()
    rng = np.random.default_rng(seed)
    width = mean * [1, 0, 0]
    height = mean * [0, 1, 0]
    nose = np.zeros_like(mean)
    nose[:, 2] = np.exp(-((mean[:, 0] / 0.06) ** 2 + (mean[:, 1] / 0.08) ** 2))
    nose[:, 2] *= mean[:, 2] > 0
    modes = np.stack([0.1 * width, 0.1 * height, 0.04 * nose]).astype(np.float32)
    jaw = np.zeros_like(mean)
    jaw[:, 1] = -0.05 * np.clip(-mean[:, 1] / 0.2, 0, 1) * (mean[:, 2] > 0)
    cheek = np.zeros_like(mean)
    cheek[:, 0] = 0.03 * np.exp(-(((mean[:, 0] - 0.2) / 0.08) ** 2))
    units = np.stack([jaw, cheek]).astype(np.float32)
    people = rng.standard_normal((num_identities, 3)).astype(np.float32)
    per_person = expressions + 1
    weights = rng.random((num_identities * per_person, 2)).astype(np.float32)
    weights[::per_person] = 0
    identity_of = np.repeat(np.arange(num_identities, dtype=np.int32), per_person)

    def neutral(persons):
        return mean + np.einsum("si,ivc->svc", people[persons], modes)

    def posed(scans):
        moved = np.einsum("se,evc->svc", weights[scans], units)
        return neutral(identity_of[scans]) + moved

    return RegisteredScans(
        faces=faces,
        vertex_regions=np.where(mean[:, 2] > -0.1, FACE, OUTER).astype(np.int8),
        mean=mean,
        identity_of=identity_of,
        is_neutral=np.arange(len(weights)) % per_person == 0,
        posed_fn=posed,
        neutral_fn=neutral,
        source="an egg",
    )


def write_mesh_folder(folder: Path, scans: RegisteredScans) -> Path:
    """Writes scans in the layout of `prior.mesh_folder`, in millimetres."""
    names = {}
    for scan in range(scans.num_scans):
        person = folder / f"person{scans.identity_of[scan]}"
        person.mkdir(parents=True, exist_ok=True)
        count = names[person] = names.get(person, -1) + 1
        name = "neutral" if scans.is_neutral[scan] else f"expression{count}"
        vertices = scans.posed_fn(np.array([scan]))[0] * MILLIMETRES_PER_UNIT
        write_mesh(person / f"{name}.ply", vertices, scans.faces)
    outer = np.flatnonzero(scans.vertex_regions == OUTER)
    settings = {
        "metres_per_unit": 0.001,
        "outer": [[int(i), int(i)] for i in outer],
        "source": "an egg, nobody's",
    }
    (folder / "scans.json").write_text(json.dumps(settings))
    return folder
