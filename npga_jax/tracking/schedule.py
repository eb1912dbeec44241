"""From coarse to fine: which unknowns are solved for, with how robust a loss, when.

First the pose alone, then the identity with expressions and poses on a few frames,
then all expressions with the identity held, then everything together. MonoNPHM's and
NPHM's fits do the same by 1,000 steps of Adam; second-order steps need about twenty.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.core import Array, Progress
from npga_jax.nphm import HeadModel, NPHMConfig
from npga_jax.tracking.equations import Observations, PriorWeights, Robust, Unknowns
from npga_jax.tracking.solver import solve_expressions, solve_identity
from npga_jax.tracking.terms import Terms

FIXED = 1e9
"""A precision that holds an unknown where it is."""

_DAMPING = 1e-3
"""Of the first step of a stage, relative to the diagonal."""


class FitStage(NamedTuple):
    """A few iterations with one robust loss."""

    scale: float  # NPHM units
    cutoff: float  # NPHM units
    min_cosine: float
    iterations: int


POSE_STAGES = (FitStage(0.1, 0.6, -1.0, 6), FitStage(0.04, 0.2, 0.2, 4))
EXPRESSION_STAGES = (
    FitStage(0.05, 0.2, 0.0, 4),
    FitStage(0.02, 0.08, 0.3, 4),
    FitStage(0.008, 0.03, 0.5, 6),
)
IDENTITY_STAGES = (
    FitStage(0.05, 0.2, 0.0, 5),
    FitStage(0.02, 0.08, 0.3, 5),
    FitStage(0.008, 0.03, 0.5, 8),
)
JOINT_STAGES = (FitStage(0.008, 0.03, 0.5, 4),)

EVIDENCE_STAGES = (FitStage(0.008, 0.03, 0.5, 4),)

_step_expressions = jax.jit(solve_expressions, static_argnames="cfg")
_step_identity = jax.jit(solve_identity, static_argnames="cfg")


def start(cfg: NPHMConfig, num_frames: int) -> Unknowns:
    """The mean head, neutral, where the first pose puts it."""
    return Unknowns(
        geo=jnp.zeros(cfg.lat_dim_geo),
        exp=jnp.zeros((num_frames, cfg.lat_dim_exp)),
        pose=jnp.zeros((num_frames, 6)),
    )


def as_arrays(prior: PriorWeights, cfg: NPHMConfig) -> PriorWeights:
    """Every weight as an array of one shape, so that programs are compiled once."""
    wide = {"geo": cfg.lat_dim_geo, "exp": cfg.lat_dim_exp}
    return PriorWeights(
        *(
            jnp.broadcast_to(
                jnp.asarray(value, jnp.float32), (wide[name],) if name in wide else ()
            )
            for name, value in prior._asdict().items()
        )
    )


def _robust(stage: FitStage) -> Robust:
    return Robust(
        *(jnp.float32(v) for v in (stage.scale, stage.cutoff, stage.min_cosine))
    )


def _iterate(
    step_fn: Callable,
    model: HeadModel,
    observations: Observations,
    unknowns: Unknowns,
    links: Array,
    damping: jax.Array,
    prior: PriorWeights,
    stages: Sequence[FitStage],
    progress: bool,
    name: str,
    terms: Terms,
) -> Unknowns:
    """Takes the steps of all stages; each stage begins with the damping given."""
    prior, links = as_arrays(prior, model.cfg), jnp.asarray(links, jnp.float32)
    total = sum(stage.iterations for stage in stages)
    done = 0
    with Progress(name, total, show=progress) as shown:
        for stage in stages:
            robust, current = _robust(stage), damping
            for _ in range(stage.iterations):
                unknowns, current = step_fn(
                    model.params,
                    model.cfg,
                    observations,
                    unknowns,
                    links,
                    current,
                    prior,
                    robust,
                    terms,
                )
                done += 1
                if progress:
                    jax.block_until_ready(unknowns)
                    shown(done)
    return unknowns


def fit_expressions(
    model: HeadModel,
    observations: Observations,
    unknowns: Unknowns,
    links: np.ndarray,
    prior: PriorWeights,
    stages: Sequence[FitStage] = EXPRESSION_STAGES,
    *,
    terms: Terms = (),
    progress: bool = False,
    name: str = "expressions",
) -> Unknowns:
    """Poses and expressions of all frames; the identity is held.

    Args:
      terms: what is to be fitted beside geometry.
      progress: whether to say on stderr how far it is.
      name: what to call this there.
    """
    return _iterate(
        _step_expressions,
        model,
        observations,
        unknowns,
        links,
        jnp.full(len(links), _DAMPING),
        prior,
        stages,
        progress,
        name,
        terms,
    )


def fit_poses(
    model: HeadModel,
    observations: Observations,
    unknowns: Unknowns,
    prior: PriorWeights,
    stages: Sequence[FitStage] = POSE_STAGES,
    *,
    terms: Terms = (),
    progress: bool = False,
) -> Unknowns:
    """Poses of all frames, each by itself; identity and expressions are held."""
    rigid = prior._replace(exp=FIXED, smooth_exp=0.0)
    links = np.zeros(len(unknowns.exp))
    return fit_expressions(
        model,
        observations,
        unknowns,
        links,
        rigid,
        stages,
        terms=terms,
        progress=progress,
        name="poses",
    )


def fit_identity(
    model: HeadModel,
    observations: Observations,
    unknowns: Unknowns,
    links: np.ndarray,
    prior: PriorWeights,
    stages: Sequence[FitStage] = IDENTITY_STAGES,
    *,
    terms: Terms = (),
    progress: bool = False,
    name: str = "identity",
) -> Unknowns:
    """Identity, expressions and poses together."""
    return _iterate(
        _step_identity,
        model,
        observations,
        unknowns,
        links,
        jnp.float32(_DAMPING),
        prior,
        stages,
        progress,
        name,
        terms,
    )


def fit_scan(
    model: HeadModel, observations: Observations, prior: PriorWeights
) -> Unknowns:
    """Identity, expression and pose of one cloud: T = 1."""
    unknowns = start(model.cfg, 1)
    unknowns = fit_poses(model, observations, unknowns, prior)
    return fit_identity(model, observations, unknowns, np.zeros(1), prior)
