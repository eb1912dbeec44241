"""Expressions once more, by all that a capture says of a person known by now."""

from functools import partial

import jax
import numpy as np

from npga_jax.data import Capture
from npga_jax.nphm import HeadModel
from npga_jax.tracking import schedule
from npga_jax.tracking.equations import Observations, PriorWeights, Unknowns
from npga_jax.tracking.evidence import (
    ToCanonical,
    color_evidence,
    landmark_evidence,
    most_neutral,
    personal_landmarks,
)
from npga_jax.tracking.gathering import Frame
from npga_jax.tracking.lid_sight import (
    LidRays,
    lid_evidence,
    lid_rays,
    meet,
    met_again,
    openness,
)
from npga_jax.tracking.options import TrackingOptions
from npga_jax.tracking.shutting import lids_motion, shut_eyes, without_lids
from npga_jax.tracking.terms import Term

_OPEN = 0.75
"""Share of what is usually seen of an eye, up to which lids have come down."""


def refine(
    capture: Capture,
    model: HeadModel,
    frames: list[Frame],
    observations: Observations,
    channels: jax.Array,
    unknowns: Unknowns,
    links: np.ndarray,
    prior: PriorWeights,
    options: TrackingOptions,
) -> Unknowns:
    """Poses and expressions by clouds, colours, lids and landmarks together.

    Args:
      frames: T of them.
      channels: [T, P, 3] colours of the observed points.
      unknowns: as clouds alone have them.
      links: [T] 1 where the frame before it follows in time.
      prior: of expressions, with the identity held.
    """
    fit = partial(
        schedule.fit_expressions, model, observations, prior=prior, progress=True
    )
    landmarks = None
    if options.landmark_noise_mm > 0:
        landmarks = landmark_evidence(model, frames, options.landmark_noise_mm)
    terms = () if landmarks is None else (landmarks,)
    unknowns = fit(
        unknowns, links, stages=schedule.JOINT_STAGES, terms=terms, name="refinement"
    )
    to_canonical = ToCanonical(model, unknowns)
    neutral = most_neutral(unknowns, options)
    terms = []
    if landmarks is not None:
        terms.append(personal_landmarks(landmarks, model, unknowns, neutral))
    if options.lid_noise_mm > 0:
        rays = lid_rays(capture, frames, model, unknowns, options)
        unknowns, lids = _look_at_lids(
            model, rays, unknowns, neutral, prior, options.lid_noise_mm
        )
        if lids is not None:
            known = np.asarray(lids.frames[-1]).max(axis=1) > 0
            terms = [lids, *(without_lids(term, known) for term in terms)]
    if options.color_noise > 0:
        terms.append(
            color_evidence(
                observations, channels, to_canonical, neutral, options.color_noise
            )
        )
    if not terms:
        return unknowns
    return fit(
        unknowns,
        links,
        stages=schedule.EVIDENCE_STAGES,
        terms=tuple(terms),
        name="colours, lids, landmarks",
    )


def _look_at_lids(
    model: HeadModel,
    rays: LidRays,
    unknowns: Unknowns,
    neutral: list[int],
    prior: PriorWeights,
    noise_mm: float,
) -> tuple[Unknowns, Term | None]:
    """The evidence of lids; and unknowns with shut eyes where little is seen of them.

    A shut lid is a fold of an open one, and half-way there distances say that it is
    better open: a fit that begins with open eyes ends there.
    """
    if not np.asarray(rays.known).any():
        return unknowns, None
    met = meet(model, rays, unknowns)
    lids = lid_evidence(rays, met, neutral, noise_mm)
    if lids is None:
        return unknowns, None
    seen = openness(lids, met)
    closed = np.where(seen < _OPEN, 1.0 - seen, 0.0)
    is_open = closed.max(axis=1) == 0
    if is_open.all() or not is_open.any():
        return unknowns, lids
    rest = next((i for i in neutral if is_open[i]), int(np.argmax(is_open)))
    shut = shut_eyes(model, unknowns.geo, unknowns.exp[rest], prior)
    motion = lids_motion(shut, closed).astype(np.float32)
    unknowns = unknowns._replace(exp=unknowns.exp + motion)
    return unknowns, met_again(lids, model, rays, unknowns)
