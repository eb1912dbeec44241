"""How well a prior fits heads that it has not seen: clouds in, millimetres out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from npga_jax.core import vertex_normals
from npga_jax.nphm import MILLIMETRES_PER_UNIT, Codes, project_to_surface
from npga_jax.prior.openings import eye_openings, seen_vertices
from npga_jax.prior.scans import RegisteredScans, triangle_normals
from npga_jax.tracking import (
    LoadedPrior,
    Observations,
    PriorWeights,
    Unknowns,
    apply_pose,
    fit_scan,
)


class CloudSettings(NamedTuple):
    """What a scan is observed by."""

    points: int = 5000
    noise_mm: float = 0.3
    outliers: float = 0.02
    outlier_mm: float = 15.0


class ScanFit(NamedTuple):
    """One scan against its fit; millimetres over the face's vertices."""

    identity: int
    scan: int
    median_mm: float
    p95_mm: float
    mean_head_mm: float  # median distance of the mean head, to compare
    normal_consistency: float  # mean cosine of true and fitted normals


def draw_cloud(
    scans: RegisteredScans,
    vertices: np.ndarray,
    settings: CloudSettings,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """A noisy cloud of a head [V, 3]: points and normals, float32, NPHM units."""
    openings = eye_openings(scans.faces, scans.vertex_regions, scans.mean)
    seen = seen_vertices(vertices, scans.vertex_regions, openings)
    faces = scans.faces[seen[scans.faces].all(axis=1)]
    normals = triangle_normals(vertices, faces)
    area = np.linalg.norm(normals, axis=-1)
    chosen = rng.choice(len(faces), settings.points, p=area / area.sum())
    u = np.sqrt(rng.random((settings.points, 1)))
    v = rng.random((settings.points, 1))
    weights = np.concatenate([1 - u, u * (1 - v), u * v], axis=1)[..., None]
    points = (weights * vertices[faces[chosen]]).sum(axis=1)
    shape = points.shape
    points = points + rng.normal(size=shape) * settings.noise_mm / MILLIMETRES_PER_UNIT
    stray = rng.random(len(points)) < settings.outliers
    far = rng.normal(size=(stray.sum(), 3)) * settings.outlier_mm
    points[stray] += far / MILLIMETRES_PER_UNIT
    unit = normals[chosen] / np.maximum(area[chosen, None], 1e-12)
    return points.astype(np.float32), unit.astype(np.float32)


def scan_prior(loaded: LoadedPrior, noise_mm: float = 2.0) -> PriorWeights:
    """Precisions that the spread of a model's codes asks for."""
    return PriorWeights(
        noise=noise_mm / MILLIMETRES_PER_UNIT,
        geo=1.0 / loaded.geo_std**2,
        exp=1.0 / loaded.exp_std**2,
    )


def codes_of(loaded: LoadedPrior, geo: ArrayLike, exp: ArrayLike) -> Codes:
    """Codes of one head, without appearance."""
    app = np.zeros(loaded.model.cfg.lat_dim_app, np.float32)
    return Codes(geo=np.asarray(geo), app=app, exp=np.asarray(exp))


def fit_held_out(
    loaded: LoadedPrior,
    scans: RegisteredScans,
    scan: int,
    settings: CloudSettings,
    face_vertices: np.ndarray,
    seed: int,
) -> tuple[ScanFit, Unknowns]:
    """Fits one scan from a cloud and measures it.

    Args:
      face_vertices: [V] bool, where distances are taken.
    """
    rng = np.random.default_rng([seed, scan])
    vertices = scans.posed_fn(np.array([scan]))[0]
    points, normals = draw_cloud(scans, vertices, settings, rng)
    observations = Observations(
        points=jnp.asarray(points[None]),
        normals=jnp.asarray(normals[None]),
        weights=jnp.ones((1, len(points))),
    )
    model = loaded.model._replace(params=jax.tree.map(jnp.asarray, loaded.model.params))
    unknowns = jax.device_get(fit_scan(model, observations, scan_prior(loaded)))
    face = vertices[face_vertices]
    truth = np.asarray(apply_pose(jnp.asarray(unknowns.pose[0]), jnp.asarray(face)))
    codes = codes_of(loaded, unknowns.geo, unknowns.exp[0])
    fitted = project_to_surface(loaded.model, truth, codes)
    distance = np.linalg.norm(fitted.points - truth, axis=-1) * MILLIMETRES_PER_UNIT
    zero = codes_of(loaded, unknowns.geo * 0, unknowns.exp[0] * 0)
    mean_head = project_to_surface(loaded.model, face, zero)
    mean_distance = np.linalg.norm(mean_head.points - face, axis=-1)
    true_normals = vertex_normals(vertices, scans.faces)[face_vertices]
    turned = np.asarray(
        apply_pose(
            jnp.concatenate([jnp.asarray(unknowns.pose[0, :3]), jnp.zeros(3)]),
            jnp.asarray(true_normals),
        )
    )
    return ScanFit(
        identity=int(scans.identity_of[scan]),
        scan=int(scan),
        median_mm=float(np.median(distance)),
        p95_mm=float(np.quantile(distance, 0.95)),
        mean_head_mm=float(np.median(mean_distance)) * MILLIMETRES_PER_UNIT,
        normal_consistency=float((turned * fitted.normals).sum(-1).mean()),
    ), unknowns
