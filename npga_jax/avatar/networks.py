"""F and G with the settings bound."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from npga_jax.avatar.detail import (
    blind_to_features,
    coarse_identity,
    detail_residuals,
    mirror_permutation,
    no_detail,
    within_reach,
)
from npga_jax.avatar.forward import forward_motion, frozen_motion
from npga_jax.avatar.model import DetailFn
from npga_jax.core import CoarseFn


class Deformation(NamedTuple):
    """The functions of a run's F and G: what training and every use of it share."""

    coarse_fn: CoarseFn
    detail_fn: DetailFn


def make_deformation(cfg, expr_names: Sequence[str]) -> Deformation:
    """F and G with the settings bound."""
    mirror = mirror_permutation(expr_names) if cfg.detail.symmetric else None
    coarse_fn = coarse_identity
    if cfg.forward.source == "distilled":
        motion_fn = forward_motion if cfg.forward.tuned else frozen_motion
        coarse_fn = partial(motion_fn, octaves=cfg.forward.octaves)
    detail_fn = partial(detail_residuals, octaves=cfg.detail.octaves, mirror=mirror)
    if not cfg.detail.reads_features:
        detail_fn = blind_to_features(detail_fn)
    if cfg.forward.source == "distilled":
        detail_fn = within_reach(detail_fn, cfg.forward.detail_reach)
    if not cfg.detail.enabled:
        detail_fn = no_detail
    return Deformation(coarse_fn=coarse_fn, detail_fn=detail_fn)
