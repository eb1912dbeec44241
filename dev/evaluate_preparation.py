"""Compares prepared mattes and clouds with a synthetic capture's truth."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage
from scipy.spatial import KDTree
from true_surface import check_sequence, load_truth, true_surface

from npga_jax.app import cli
from npga_jax.core import InputError, write_json
from npga_jax.data import CaptureConfig, PointCloud, find_sources, open_located

ndimage: Any = scipy.ndimage  # Types of what it returns are not known.

_HAIR, _FACE = 14, 2
_CLASSES = {
    "neck": (1, 3),
    "face": (2, 4, 5, 6, 7, 10, 12, 13),
    "eyes": (8, 9),
    "mouth": (11,),
    "hair": (14,),
}
_BAND = 10  # Pixels on either side of the hair's rim.
_SAMPLES = 600_000
_MM = 1000.0


@dataclasses.dataclass(frozen=True)
class EvaluatePreparationConfig:
    """Errors of mattes and clouds that experiments/prepare.py made.

    Only for captures that were rendered from ICT-FaceKit and say how.
    """

    prepared: Path
    """Folder of the subject: the raw one where all went to the cache."""
    truth: Path
    """Folder of the subject with true mattes, labels and ground_truth/truth.npz."""
    scans: Path
    """ICT-FaceKit's .npz."""
    sequences: tuple[str, ...] = ()
    """Default: all."""
    cache_dir: Path | None = None
    """Cache in which what was made of the capture lies; default: the usual one."""
    every: int = 1
    """Look at every n-th frame only."""
    json: Path | None = None
    """Where the figures go."""


class Surface(NamedTuple):
    """Points on the true face, and what lies at its rim."""

    points: np.ndarray  # [S, 3]
    normals: np.ndarray  # [S, 3]
    rim: np.ndarray  # [R, 3]


def main(cfg: EvaluatePreparationConfig) -> None:
    from npga_jax.prior import load_ict

    if cfg.every < 1:
        raise InputError(f"--every {cfg.every}: expected 1 or more.")
    ours, theirs = open_both(cfg)
    truth, ict = load_truth(cfg.truth), load_ict(cfg.scans)
    chosen = [
        t
        for t in ours.timesteps
        if (not cfg.sequences or t.sequence in cfg.sequences)
        and t.frame_id % cfg.every == 0
    ]
    if not chosen:
        raise InputError(
            f"{cfg.prepared} has no frame of {', '.join(cfg.sequences)}; it has "
            f"{', '.join(ours.sequences)}."
        )
    same = {(t.sequence, t.frame_id): t for t in theirs.timesteps}
    mattes, clouds, maps = [], [], []
    for timestep in chosen:
        check_sequence(truth, cfg.truth, timestep.sequence)
        other = same[timestep.sequence, timestep.frame_id]
        votes = None
        cloud = ours.points(timestep)
        for camera_id in ours.cameras:
            true, labels = (
                theirs.alpha(other, camera_id),
                theirs.labels(other, camera_id),
            )
            found = ours.alpha(timestep, camera_id)
            mattes.append(matte_errors(found, true, labels))
            made = ours.labels(timestep, camera_id)
            if made is not None and labels is not None:
                maps.append(label_counts(made, labels))
            if cloud is not None and labels is not None:
                seen = labels_at(cloud.xyz, ours.camera(timestep, camera_id), labels)
                counts = np.eye(16, dtype=int)[np.minimum(seen, 15)]
                votes = counts if votes is None else votes + counts
        if cloud is None or votes is None:
            continue
        vertices = true_surface(truth, ict, timestep.sequence, timestep.frame_id)
        surface = sample_surface(vertices, ict.faces)
        views = [
            (theirs.camera(other, c), theirs.labels(other, c)) for c in theirs.cameras
        ]
        is_face = votes.argmax(axis=1) == _FACE
        clouds.append(cloud_errors(cloud, is_face, surface, visible(surface, views)))
    result = summary(mattes, clouds) | label_summary(maps)
    for name, value in result.items():
        print(f"{name:<28}{value:9.4f}")
    if cfg.json:
        write_json(cfg.json, result)


def open_both(cfg: EvaluatePreparationConfig) -> tuple[Any, Any]:
    """The prepared capture and the true one, in the resolution of the videos."""
    import av

    sequence = sorted((cfg.truth / "sequences").iterdir())[0].name
    video = next(iter(find_sources(cfg.truth, sequence, "rgb").values()), None)
    if video is None:
        raise InputError(f"{cfg.truth} has no videos.")
    with av.open(str(video)) as container:
        width = container.streams.video[0].width
    capture = CaptureConfig(width=width, cache_dir=cfg.cache_dir)
    ours, theirs = (
        open_located(path.parent, path.name, capture, need_driving=False, decode=False)
        for path in (cfg.prepared, cfg.truth)
    )
    return ours, theirs


def matte_errors(
    found: np.ndarray, true: np.ndarray, labels: np.ndarray | None
) -> tuple[float, float]:
    """Mean absolute error of a matte [H, W] uint8: everywhere, and around hair."""
    share = np.clip((true.astype(np.float32) - 1) / 253, 0, 1)
    error = np.abs(found / np.float32(255) - share)
    if labels is None:
        return float(error.mean()), float("nan")
    rim = (true > 12) & (true < 243)
    rim &= ndimage.binary_dilation(labels == _HAIR, iterations=6)
    if not rim.any():
        return float(error.mean()), float("nan")
    band = ndimage.distance_transform_edt(~rim) < _BAND
    return float(error.mean()), float(error[band].mean())


def labels_at(xyz: np.ndarray, camera: Any, labels: np.ndarray) -> np.ndarray:
    """[P] label where each point is seen."""
    column, row, _ = _pixels(xyz, camera, labels.shape)
    return labels[row, column]


def sample_surface(vertices: np.ndarray, faces: np.ndarray) -> Surface:
    """Points spread evenly over the triangles whose corners are all there."""
    faces = faces[(faces < len(vertices)).all(axis=1)]
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    across = np.cross(b - a, c - a)
    area = np.linalg.norm(across, axis=1)
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(faces), _SAMPLES, p=area / area.sum())
    u, v = np.sqrt(rng.random(_SAMPLES))[:, None], rng.random(_SAMPLES)[:, None]
    points = (1 - u) * a[chosen] + u * (1 - v) * b[chosen] + u * v * c[chosen]
    normals = across[chosen] / np.maximum(area[chosen], 1e-15)[:, None]
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    edges, count = np.unique(edges, axis=0, return_counts=True)
    return Surface(points, normals, vertices[np.unique(edges[count == 1])])


def visible(surface: Surface, views: list[tuple[Any, np.ndarray]]) -> np.ndarray:
    """[S] whether two or more cameras see a point as skin, within 60 degrees."""
    count = np.zeros(len(surface.points), int)
    for camera, labels in views:
        matrix = camera.world2cam.astype(np.float64)
        seen = surface.points @ matrix[:3, :3].T + matrix[:3, 3]
        way = -seen / np.linalg.norm(seen, axis=1, keepdims=True)
        facing = ((surface.normals @ matrix[:3, :3].T) * way).sum(-1) > 0.5
        column, row, z = _pixels(surface.points, camera, labels.shape)
        nearest = np.full(labels.shape, np.inf)
        np.minimum.at(nearest, (row, column), z)
        front = z < nearest[row, column] + 0.004
        count += facing & front & (labels[row, column] == _FACE)
    return count > 1


def cloud_errors(
    cloud: PointCloud, is_face: np.ndarray, surface: Surface, seen: np.ndarray
) -> dict[str, np.ndarray]:
    """Errors of the points on the face, and gaps in what is seen of it."""
    xyz = cloud.xyz[is_face].astype(np.float64)
    distance, nearest = KDTree(surface.points).query(xyz)
    normals = surface.normals[nearest]
    away = xyz - surface.points[nearest]
    height = np.abs((away * normals).sum(-1))
    aside = np.sqrt(np.maximum(distance**2 - height**2, 0))
    beyond = KDTree(surface.rim).query(surface.points[nearest])[0] < 0.004
    kept = ~(beyond & (aside > 0.0005)) & (distance < 0.02)
    # Samples lie apart: a point above a gap between them is judged by its height.
    error = np.where(aside < 0.001, height, distance)[kept] * _MM
    turned = np.empty(0)
    if cloud.normals is not None:
        cosine = (cloud.normals[is_face] * normals).sum(-1)[kept]
        turned = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    points = surface.points[seen][::20]
    gaps = KDTree(cloud.xyz).query(points)[0] * _MM
    return {"error_mm": error, "normal_degrees": turned, "gap_mm": gaps}


def label_counts(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Pixels [classes, 2] that both maps give to a class, and that either does."""
    counts = []
    for members in _CLASSES.values():
        ours, theirs = np.isin(found, members), np.isin(true, members)
        counts.append(((ours & theirs).sum(), (ours | theirs).sum()))
    return np.array(counts)


def label_summary(maps: list[np.ndarray]) -> dict[str, float]:
    """Intersection over union of each class, over all maps."""
    if not maps:
        return {}
    both, either = np.sum(maps, axis=0).T
    return {"label_maps": len(maps)} | {
        f"iou_{name}": float(b / max(e, 1))
        for name, b, e in zip(_CLASSES, both, either, strict=True)
    }


def summary(
    mattes: list[tuple[float, float]], clouds: list[dict[str, np.ndarray]]
) -> dict[str, float]:
    """All figures, over all frames."""
    whole, band = (np.array(x) for x in zip(*mattes, strict=True))
    result = {
        "mattes": len(mattes),
        "matte_error": float(whole.mean()),
        "matte_error_hair": float(np.nanmean(band)),
        "clouds": len(clouds),
    }
    if clouds:
        error, turned, gaps = (
            np.concatenate([c[name] for c in clouds])
            for name in ("error_mm", "normal_degrees", "gap_mm")
        )
        medians = [np.median(c["error_mm"]) for c in clouds]
        result |= {
            "skin_median_mm": float(np.median(error)),
            "skin_p95_mm": float(np.quantile(error, 0.95)),
            "skin_beyond_2_mm": float(np.mean(error > 2)),
            "worst_frame_median_mm": float(max(medians)),
            "normals_median_degrees": float(np.median(turned)),
            "seen_within_2_mm": float(np.mean(gaps < 2)),
            "seen_within_3_mm": float(np.mean(gaps < 3)),
        }
    return result


def _pixels(
    xyz: np.ndarray, camera: Any, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Column and row of points within an image's rim, and their depth."""
    matrix = camera.world2cam.astype(np.float64)
    points = xyz @ matrix[:3, :3].T + matrix[:3, 3]
    pixels = points @ camera.K.astype(np.float64).T
    z = np.maximum(points[:, 2], 1e-6)
    column = np.clip(pixels[:, 0] / z, 0, shape[1] - 1).astype(int)
    row = np.clip(pixels[:, 1] / z, 0, shape[0] - 1).astype(int)
    return column, row, points[:, 2]


if __name__ == "__main__":
    cli.run(main, EvaluatePreparationConfig)
