"""Whether skin keeps its place in canonical space while an expression moves it."""

from pathlib import Path
from typing import Any

import numpy as np
from true_surface import true_surface

_NUM_LIDS = 30
"""Vertices of each eye that a blink moves most."""
_SHUT, _OPEN = 0.6, 0.2
"""Weights of a blink from which on an eye is shut, and up to which it is open."""
_BLINKS = ("eyeBlink_L", "eyeBlink_R")


def lid_vertices(ict: Any) -> np.ndarray:
    """The lids among the narrow face's vertices: [60]."""
    from npga_jax.prior import NARROW_FACE_VERTICES

    names = list(ict.expression_names)
    units = ict.expression[[names.index(n) for n in _BLINKS]][:, NARROW_FACE_VERTICES]
    moved = np.linalg.norm(units, axis=-1).sum(axis=0)
    side = ict.neutral[NARROW_FACE_VERTICES, 0]
    halves = [np.flatnonzero(side < 0), np.flatnonzero(side > 0)]
    return np.concatenate([h[np.argsort(-moved[h])[:_NUM_LIDS]] for h in halves])


def canonical_truth(
    path: Path, sequence: str, truth, ict: Any, loaded: Any
) -> dict[tuple[str, int], np.ndarray]:
    """Where tracked codes take the true face: by sequence and frame, [V, 3] mm."""
    import jax
    import jax.numpy as jnp

    from npga_jax.data import load_driving
    from npga_jax.nphm import MILLIMETRES_PER_UNIT, Codes, deform, predict_anchors
    from npga_jax.tracking import load_identity, similarity_from_matrix

    cfg, params = loaded.model.cfg, jax.tree.map(jnp.asarray, loaded.model.params)
    geo = jnp.asarray(load_identity(path, loaded))[None]
    app = jnp.zeros((1, cfg.lat_dim_app))
    anchors = predict_anchors(params, cfg, geo)

    @jax.jit
    def back(points, exp):
        codes = Codes(geo=geo, app=app, exp=exp[None])
        return deform(params, cfg, points[None], codes, anchors)[0, :, :3]

    track, found = load_driving(path), {}
    for row, frame in enumerate(track.frame_id):
        surface = true_surface(truth, ict, sequence, int(frame))
        pose = similarity_from_matrix(track.world_from_head[row])
        points = jnp.asarray(pose.to_head(surface), jnp.float32)
        places = back(points, jnp.asarray(track.expr[row]))
        found[sequence, int(frame)] = np.asarray(places) * MILLIMETRES_PER_UNIT
    return found


def drift_of(
    places: dict[tuple[str, int], np.ndarray], truth, ict: Any
) -> dict[str, Any]:
    """Distances of vertices from their median place over all frames, millimetres.

    Returns:
      The face's median; means over the lids of frames with open eyes (None without
      any), and of each frame with shut ones.
    """
    names = list(ict.expression_names)
    blinks = [names.index(n) for n in _BLINKS]
    blink = np.array([truth[f"{s}/weights"][f][blinks].mean() for s, f in places])
    stack = np.stack(list(places.values()))
    drift = np.linalg.norm(stack - np.median(stack, axis=0), axis=-1)
    lids = drift[:, lid_vertices(ict)].mean(axis=1)
    is_open, is_shut = blink < _OPEN, blink > _SHUT
    return {
        "face_median_mm": float(np.median(drift)),
        "lids_open_mm": float(lids[is_open].mean()) if is_open.any() else None,
        "lids_shut_mm": {
            f"{sequence} {frame}": float(lid)
            for (sequence, frame), lid, shut in zip(places, lids, is_shut, strict=True)
            if shut
        },
    }
