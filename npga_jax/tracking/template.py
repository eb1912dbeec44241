"""A mesh of the mean head whose parts have names, and how it follows a person.

A head model is a field: it does not say where the lids are. The template does. It is
brought to a person by what the model's anchors do, and to an expression by inverting
the deformation, so that any model in NPHM's frame can be asked.
"""

import importlib.resources
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.spatial import KDTree

from npga_jax.core import load_npz
from npga_jax.data import segmentation
from npga_jax.nphm import (
    Codes,
    HeadModel,
    StopRules,
    evaluate_points,
    invert_deformation,
    predict_anchors,
    project_to_surface,
)

_MOST_BYTES = 1 << 20
_RULES = StopRules(converged=2e-3, diverged=0.3, max_steps=15)
"""Half a millimetre is enough for names."""
_FARTHEST = 0.3
"""NPHM units by which an expression may move a point."""
_NEAR = 0.03
"""NPHM units by which the surface of a person may be off the warped template."""
_LIP_COLUMNS, _LIP_ROWS, _LIP_STEPS = 33, 33, 12
_LIP_REACH = 0.03
"""NPHM units above and below in which the furrow is sought."""
_LIP_FALLOFF = 0.06
"""NPHM units from it over which its shift is shared."""
_SMOOTHING = 1e-6
"""Of the motions between anchors."""


class HeadTemplate(NamedTuple):
    """The mean head, neutral; NPHM units."""

    vertices: np.ndarray  # [V, 3] float32
    faces: np.ndarray  # [F, 3] int32, counter-clockwise seen from outside
    labels: np.ndarray  # [F] uint8, `data.segmentation`; hair: the scalp
    rims: tuple[np.ndarray, ...]  # vertices around each opening, in order
    rim_labels: np.ndarray  # [R] uint8: right eye, left eye, inside of the mouth
    bulges: np.ndarray  # [R, 3] where the middle of what fills it is off its rim's
    leaders: np.ndarray  # [V] whose motion each shares: for lips, one well seen
    guides: np.ndarray  # [V] whose motion is alike: for lips, above or below them


def packaged_template() -> HeadTemplate:
    """The template that ships with the package (of ICT-FaceKit's mean head)."""
    path = importlib.resources.files("npga_jax.tracking") / "template.npz"
    what = "the packaged head template"
    arrays = load_npz(Path(str(path)), what, max_bytes=_MOST_BYTES)
    ends = np.cumsum(arrays["rim_sizes"])[:-1]
    return HeadTemplate(
        arrays["vertices"].astype(np.float32),
        arrays["faces"].astype(np.int32),
        arrays["labels"],
        tuple(np.split(arrays["rims"].astype(np.int32), ends)),
        arrays["rim_labels"],
        arrays["bulges"].astype(np.float32),
        arrays["leaders"].astype(np.int32),
        arrays["guides"].astype(np.int32),
    )


def fit_template(
    template: HeadTemplate, model: HeadModel, geo: np.ndarray
) -> np.ndarray:
    """The template's vertices on a person's canonical head: [V, 3] NPHM units.

    Args:
      template: of the mean head.
      model: head model.
      geo: [lat_dim_geo] identity.
    """
    both = jnp.stack([jnp.zeros(model.cfg.lat_dim_geo), jnp.asarray(geo)])
    mean, own = np.asarray(predict_anchors(model.params, model.cfg, both), np.float64)
    # Pairs of mirror points may coincide on the plane of symmetry.
    mean, first = np.unique(mean, axis=0, return_index=True)
    warp = RBFInterpolator(
        mean, own[first] - mean, kernel="linear", degree=0, smoothing=_SMOOTHING
    )
    moved = template.vertices + warp(template.vertices)
    codes = _codes(model, geo, np.zeros(model.cfg.lat_dim_exp))
    moved = _align_lips(moved, template.rims[-1], model, codes)
    near = project_to_surface(model, moved, codes, posed=False)
    step = near.points - moved
    step = np.where(np.linalg.norm(step, axis=1, keepdims=True) < _NEAR, step, 0)
    return (moved + step[template.leaders]).astype(np.float32)


def _align_lips(
    vertices: np.ndarray, rim: np.ndarray, model: HeadModel, codes: Codes
) -> np.ndarray:
    """Brings the line where lips meet to the furrow between the person's.

    Anchors leave it some millimetres off, and what of one lip lay on the other would
    be drawn out over the open mouth.

    Args:
      vertices: [V, 3] about the canonical head, NPHM units.
      rim: those where lips meet.
      model: head model.
      codes: of the person.
    """
    line = vertices[rim]
    low, high = line[:, 0].min(), line[:, 0].max()
    x = np.linspace(0.9 * low + 0.1 * high, 0.1 * low + 0.9 * high, _LIP_COLUMNS)
    order = np.argsort(line[:, 0])
    half = (high - low) / _LIP_COLUMNS
    usual = np.array([np.median(line[np.abs(line[:, 0] - c) < half, 1]) for c in x])
    usual = np.where(np.isnan(usual), np.interp(x, *line[order, :2].T), usual)
    off = np.linspace(-_LIP_REACH, _LIP_REACH, _LIP_ROWS)
    points = np.zeros((_LIP_COLUMNS, _LIP_ROWS, 3), np.float32)
    points[..., 0], points[..., 1] = x[:, None], usual[:, None] + off
    points[..., 2] = line[:, 2].max() + _LIP_REACH
    for _ in range(_LIP_STEPS):
        sdf = evaluate_points(model, points.reshape(-1, 3), codes, posed=False).sdf
        points[..., 2] -= sdf.reshape(points.shape[:2])
    depth = points[..., 2]
    rim_depth = np.minimum(depth[:, :1], depth[:, -1:])
    furrow = np.clip(rim_depth - depth, 0, None) ** 2 + 1e-12
    # The deepest place, its neighbours considered.
    peak = furrow >= 0.5 * furrow.max(axis=1, keepdims=True)
    weight = furrow * peak
    found = (weight * off).sum(axis=1) / weight.sum(axis=1)
    trust = np.sqrt(weight.max(axis=1))
    shift = np.polynomial.Polynomial.fit(x, found, 4, w=trust)
    near = KDTree(line).query(vertices)[0]
    moved = vertices.copy()
    across = np.clip(vertices[:, 0], x[0], x[-1])
    moved[:, 1] += np.exp(-((near / _LIP_FALLOFF) ** 2)) * shift(across)
    return moved


def pose_template(
    template: HeadTemplate,
    canonical: np.ndarray,
    model: HeadModel,
    geo: np.ndarray,
    exp: np.ndarray,
) -> np.ndarray:
    """The template's vertices with an expression: [V, 3] NPHM units.

    Args:
      template: whose vertices follow which.
      canonical: [V, 3] of `fit_template`.
      model: head model.
      geo: [lat_dim_geo] identity.
      exp: [lat_dim_exp] expression.

    Returns:
      Vertices for which the deformation has no inverse stay where they are.
    """
    codes = _codes(model, geo, exp)
    batch = Codes(*(jnp.asarray(c, jnp.float32)[None] for c in codes))
    anchors = predict_anchors(model.params, model.cfg, batch.geo)

    def solve(targets: np.ndarray, starts: np.ndarray) -> np.ndarray:
        found = invert_deformation(
            model.params,
            model.cfg,
            jnp.asarray(targets, jnp.float32)[None],
            batch,
            anchors,
            jnp.asarray(starts, jnp.float32)[None],
            rules=_RULES,
        )
        moved = np.asarray(found.points[0]) - targets
        good = np.asarray(found.valid[0]) & (np.linalg.norm(moved, axis=1) < _FARTHEST)
        return np.where(good[:, None], moved, 0)

    moved = solve(canonical, canonical)
    # What is between the lips has a root on either: each is sought from its own side.
    lips = np.flatnonzero(template.guides != np.arange(len(canonical)))
    guessed = canonical[lips] + moved[template.guides[lips]]
    moved[lips] = solve(canonical[lips], guessed)
    return canonical + moved[template.leaders]


def fill_openings(
    template: HeadTemplate, vertices: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The template with eyes and mouth closed by patches of their own labels.

    Eyes are filled to their bulge, the mouth is a pocket as deep as its own.

    Args:
      template: whose faces these are.
      vertices: [V, 3], fitted or posed.

    Returns:
      vertices [V', 3], faces [F', 3], labels [F'].
    """
    points, faces, labels = [vertices], [template.faces], [template.labels]
    count = len(vertices)
    for rim, label, bulge in zip(
        template.rims, template.rim_labels, template.bulges, strict=True
    ):
        edge = vertices[rim]
        middle = edge.mean(axis=0)
        rest = template.vertices[rim]
        opened = _area(edge) / max(_area(rest), 1e-9)
        is_deep = bulge[2] < 0
        out = bulge if is_deep else bulge * min(opened, 1.0)
        ring = edge + out if is_deep else 0.5 * (edge + middle) + 0.75 * out
        points += [ring, (middle + out)[None]]
        size = len(rim)
        inner = count + np.arange(size)
        after, inner_after = np.roll(rim, -1), np.roll(inner, -1)
        centre = np.full(size, count + size)
        patch = np.concatenate(
            [
                np.stack([rim, after, inner_after], axis=1),
                np.stack([rim, inner_after, inner], axis=1),
                np.stack([inner, inner_after, centre], axis=1),
            ]
        )
        # What leads into the mouth is the inside of the lips, which are face.
        band = np.full(2 * size, segmentation.FACE if is_deep else label, np.uint8)
        faces.append(patch.astype(np.int32))
        labels += [band, np.full(size, label, np.uint8)]
        count += size + 1
    return np.concatenate(points), np.concatenate(faces), np.concatenate(labels)


def _area(loop: np.ndarray) -> float:
    """Of the surface between a loop [N, 3] and its middle."""
    spokes = loop - loop.mean(axis=0)
    across = np.cross(spokes, np.roll(spokes, -1, axis=0))
    return float(np.linalg.norm(across, axis=1).sum() / 2)


def _codes(model: HeadModel, geo: np.ndarray, exp: np.ndarray) -> Codes:
    app = np.zeros(model.cfg.lat_dim_app, np.float32)
    return Codes(
        geo=np.asarray(geo, np.float32), app=app, exp=np.asarray(exp, np.float32)
    )
