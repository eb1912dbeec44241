"""Expressions once more, by all that a capture says of a person known by now."""

from functools import partial

import jax
import jax.numpy as jnp
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
    met_again,
    openness,
)
from npga_jax.tracking.options import TrackingOptions
from npga_jax.tracking.shutting import shut_eyes, without_lids

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
    lids, rays, rest = None, None, []
    if options.lid_noise_mm > 0:
        rays = lid_rays(capture, frames, model, unknowns, options)
        lids = lid_evidence(model, rays, unknowns, neutral, options.lid_noise_mm)
    if landmarks is not None:
        personal = personal_landmarks(landmarks, model, unknowns, neutral)
        rest.append(personal if lids is None else without_lids(personal))
    if options.color_noise > 0:
        rest.append(
            color_evidence(
                observations, channels, to_canonical, neutral, options.color_noise
            )
        )
    if lids is not None and rays is not None:
        unknowns = _begin_shut(model, rays, unknowns, neutral, prior)
        lids = met_again(lids, model, rays, unknowns)
    terms = (*rest,) if lids is None else (lids, *rest)
    if not terms:
        return unknowns
    return fit(
        unknowns,
        links,
        stages=schedule.EVIDENCE_STAGES,
        terms=terms,
        name="colours, lids, landmarks",
    )


def _begin_shut(
    model: HeadModel,
    rays: LidRays,
    unknowns: Unknowns,
    neutral: list[int],
    prior: PriorWeights,
) -> Unknowns:
    """Begins with shut eyes where little is seen of them.

    A shut lid is a fold of an open one, and half-way there distances say that it is
    better open: a fit that begins with open eyes ends there.
    """
    seen = openness(model, rays, unknowns)
    closed = np.where(seen < _OPEN, 1.0 - seen, 0.0)
    if not closed.any():
        return unknowns
    both, right, left = shut_eyes(
        model, jnp.asarray(unknowns.geo), unknowns.exp[neutral[0]], prior
    )
    by_both = closed.min(axis=1, keepdims=True)
    by_right, by_left = np.split(closed - by_both, 2, axis=1)
    motion = by_both * both + by_right * right + by_left * left
    return unknowns._replace(exp=unknowns.exp + motion)
