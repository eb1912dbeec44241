"""What label maps say of lids: rays through their pixels, and where these meet a head.

A ray meets shut lids elsewhere than it meets the eye behind open ones, so where it
meets is found anew once eyes are shut.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.core import Array
from npga_jax.data import Capture, segmentation
from npga_jax.nphm import MILLIMETRES_PER_UNIT, HeadModel
from npga_jax.tracking.alignment import refined
from npga_jax.tracking.clouds import padded
from npga_jax.tracking.equations import Unknowns
from npga_jax.tracking.eye_pixels import MOST_PIXELS, eye_pixels
from npga_jax.tracking.gathering import Frame
from npga_jax.tracking.lids import Openings, about_openings, find_openings, lid_term
from npga_jax.tracking.options import TrackingOptions
from npga_jax.tracking.residuals import apply_pose, distances, rotation_matrix
from npga_jax.tracking.template import fit_template, packaged_template
from npga_jax.tracking.terms import Term, canonical_places, condition_of

_RAY_STEPS, _LONGEST_STEP = 16, 5.0 / MILLIMETRES_PER_UNIT
_MET = 0.3 / MILLIMETRES_PER_UNIT
"""Distance at which a ray has met the surface."""
_FEWEST_PIXELS = 30
"""About one eye, that say how much of it is seen."""
_USUAL_QUANTILE = 0.6
"""Eyes are open in more than the rest of the frames."""


class LidRays(NamedTuple):
    """Rays of T frames, Q each, before the pose residuals; NPHM units."""

    origins: Array  # [T, Q, 3]
    directions: Array  # [T, Q, 3]
    starts: Array  # [T, Q] along the ray, before the eye
    is_eye: Array  # [T, Q] bool
    known: Array  # [T, Q] bool; False for padding


class Met(NamedTuple):
    """Where rays meet heads."""

    points: jax.Array  # [T, Q, 3] before the pose residuals
    places: jax.Array  # [T, Q, 3] in canonical space
    known: jax.Array  # [T, Q] bool; whether the ray meets the head


def lid_rays(
    capture: Capture,
    frames: Sequence[Frame],
    model: HeadModel,
    unknowns: Unknowns,
    options: TrackingOptions,
) -> LidRays:
    """Draws rays about the eyes of all frames; none are known without label maps."""
    template = packaged_template()
    vertices = fit_template(template, model, np.asarray(unknowns.geo))
    eyes = np.stack(
        [
            vertices[rim].mean(axis=0)
            for rim, label in zip(template.rims, template.rim_labels, strict=True)
            if label in segmentation.EYES
        ]
    )
    rng = np.random.default_rng(options.seed)
    count = (len(frames), MOST_PIXELS)
    rays = LidRays(
        np.zeros((*count, 3), np.float32),
        np.zeros((*count, 3), np.float32),
        np.zeros(count, np.float32),
        np.zeros(count, bool),
        np.zeros(count, bool),
    )
    for i, frame in enumerate(frames):
        residual = np.asarray(unknowns.pose[i], np.float64)
        pose = refined(frame.pose, residual)
        pixels = eye_pixels(capture, frame.timestep, pose, eyes, rng)
        if pixels is None:
            continue
        # The rays are in the model's frame; the pose residual is taken back.
        rotation = np.asarray(rotation_matrix(jnp.asarray(residual[:3])))
        own = (
            (pixels.origins - residual[3:]) @ rotation,
            pixels.directions @ rotation,
            pixels.starts[:, None],
            pixels.is_eye[:, None],
        )
        *own, known = padded(own, MOST_PIXELS)
        for array, value in zip(rays, (*own, known[:, None]), strict=True):
            array[i] = value.reshape(array[i].shape)
    return rays


@jax.jit(static_argnames="cfg")
def _meet(params, cfg, rays: LidRays, unknowns: Unknowns) -> Met:
    def one(inputs):
        own, exp, pose = inputs
        origins = apply_pose(pose, own.origins)
        directions = own.directions @ rotation_matrix(pose[:3]).T

        def closer(_, along):
            points = origins + along[:, None] * directions
            sdf = distances(params, cfg, points, unknowns.geo, exp)
            return along + jnp.clip(sdf, -_LONGEST_STEP, _LONGEST_STEP)

        along = jax.lax.fori_loop(0, _RAY_STEPS, closer, own.starts)
        points = origins + along[:, None] * directions
        sdf = distances(params, cfg, points, unknowns.geo, exp)
        condition = condition_of(params, cfg, unknowns.geo, exp)
        places = canonical_places(params, points, condition)
        seen = own.origins + along[:, None] * own.directions
        return Met(seen, places, own.known & (jnp.abs(sdf) < _MET))

    return jax.lax.map(one, (rays, unknowns.exp, unknowns.pose))


def meet(model: HeadModel, rays: LidRays, unknowns: Unknowns) -> Met:
    """Follows rays to the surfaces of heads."""
    return _meet(model.params, model.cfg, rays, unknowns)


def lid_evidence(
    rays: LidRays,
    met: Met,
    neutral: Sequence[int],
    noise_mm: float,
) -> Term | None:
    """Where eyes are seen and where skin is; None where no label maps say so.

    Args:
      met: where the rays meet the heads.
      neutral: the most neutral frames, in which the eyes' openings are looked for.
    """
    met = jax.device_get(met)
    # A code may look neutral because lids were not followed: open eyes are seen.
    seen = (rays.is_eye & met.known).sum(axis=1)
    seen = seen / np.maximum(met.known.sum(axis=1), 1)
    is_open = (seen >= np.median(seen)) & met.known.any(axis=1)
    chosen = [i for i in neutral if is_open[i]] or np.flatnonzero(is_open).tolist()
    if not chosen:
        return None
    openings = find_openings(
        np.concatenate([met.places[i][met.known[i]] for i in chosen]),
        np.concatenate([rays.is_eye[i][met.known[i]] for i in chosen]),
    )
    if openings is None:
        return None
    return lid_term(
        openings,
        np.asarray(met.points),
        np.asarray(rays.is_eye),
        np.asarray(_weights(openings, met)),
        noise_mm / MILLIMETRES_PER_UNIT,
    )


def openness(term: Term, met: Met) -> np.ndarray:
    """How much is seen of the right eye and of the left one: [T, 2].

    As shares of what the frames show that show much; 1 where too little is seen to say.

    Args:
      term: `lid_evidence`.
      met: what it was made of.
    """
    _, side, weights = (np.asarray(x) for x in term.frames)
    is_right = np.asarray(met.places)[..., 0] < 0
    shares = []
    for eye in (is_right, ~is_right):
        around = (weights > 0) & eye
        count = around.sum(axis=1)
        share = ((side < 0) & around).sum(axis=1) / np.maximum(count, 1)
        enough = count >= _FEWEST_PIXELS
        usual = np.quantile(share[enough], _USUAL_QUANTILE) if enough.any() else 0.0
        shares.append(np.where(enough & (usual > 0), share / max(usual, 1e-6), 1.0))
    return np.stack(shares, axis=1)


def met_again(term: Term, model: HeadModel, rays: LidRays, unknowns: Unknowns) -> Term:
    """The same evidence with points where the rays meet the heads as they are now."""
    met = meet(model, rays, unknowns)
    _, side, _ = term.frames
    return dataclasses.replace(
        term, frames=(met.points, side, _weights(term.shared, met))
    )


def _weights(openings: Openings, met: Met) -> jax.Array:
    near = jax.vmap(lambda places: about_openings(openings, places))(met.places)
    return jnp.asarray(met.known & near, jnp.float32)
