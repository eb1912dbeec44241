"""The state before the first step: F, and Gaussians on the points of some frames."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.avatar import JAW, jaw_motion, wiener_filter, with_chin
from npga_jax.core import Params
from npga_jax.data import INNER_MOUTH, Capture, Timestep, Views, expression_codes
from npga_jax.distillation import Person, canonicalize
from npga_jax.training.build import neighbour_graph, person_forward, state_from_points
from npga_jax.training.initial_points import (
    ON_SKULL,
    InitialPoints,
    gather_points,
    join,
    most_neutral,
    most_varied,
)
from npga_jax.training.mouth import (
    bind_mouth,
    canonical_skin,
    chin_points,
    mouth_points,
)
from npga_jax.training.settings import TrainConfig
from npga_jax.training.step import TrainState

_MOST_IN_MOUTH = 0.1
"""Of the first points."""


def initial_state(
    cfg: TrainConfig,
    capture: Capture,
    train: Sequence[Views],
    person: Person | None = None,
) -> TrainState:
    """State before the first step, from the clouds of some training frames.

    Args:
      person: whose head model F is distilled from; None without F.
    """
    training = [v.timestep for v in train]
    neutral = most_neutral(capture, training, cfg.gaussians.init_frames)
    share = 1.0 if cfg.density.strategy == "none" else cfg.gaussians.init_share
    max_points = max(1, int(share * cfg.gaussians.capacity))
    cameras = train[0].cameras
    gather = partial(gather_points, capture, seed=cfg.seed, cameras=cameras)
    coarse, code_std, code_filter = {}, 1.0, None
    if person is None:
        points = gather(neutral, max_points=max_points)
    else:
        codes = expression_codes(capture, train)
        coarse = person_forward(cfg, person, codes)
        code_std = person.exp_std
        code_filter = wiener_filter(codes / code_std, cfg.detail.tracking_noise)
        to_canonical = partial(canonicalize, person)
        coarse, mouth = _find_mouth(
            cfg,
            capture,
            training,
            neutral,
            coarse,
            to_canonical,
            cameras=cameras,
            max_points=int(_MOST_IN_MOUTH * max_points),
        )
        num_mouth = 0 if mouth is None else len(mouth.means)
        count = cfg.gaussians.expressive_frames
        points = gather(
            neutral + most_varied(capture, training, neutral, count),
            max_points=max(1, max_points - num_mouth),
            to_canonical=to_canonical,
            on_skull=ON_SKULL if cfg.gaussians.bones else (),
            left_out=() if mouth is None else (INNER_MOUTH,),
        )
        points = points if mouth is None else join(points, mouth)
    state = state_from_points(
        cfg,
        points,
        num_expr=capture.expr_dim,
        coarse=coarse,
        code_std=code_std,
        code_filter=code_filter,
    )
    graph = neighbour_graph(cfg, state.params.gaussians, state.alive)
    return state._replace(graph=graph)


def _find_mouth(
    cfg: TrainConfig,
    capture: Capture,
    training: Sequence[Timestep],
    neutral: Sequence[Timestep],
    coarse: Params,
    to_canonical: Callable,
    *,
    cameras: Sequence[str],
    max_points: int,
) -> tuple[Params, InitialPoints | None]:
    """F with the chin that shows the jaw's motion, and the points inside the mouth.

    No points where there are no label maps of them, or none is wanted.
    """
    if not cfg.gaussians.bones:
        return with_chin(coarse, None), None
    options = {"cameras": cameras, "max_points": max_points, "seed": cfg.seed}
    mouth = mouth_points(capture, training, **options)
    if not len(mouth.means):
        return with_chin(coarse, None), None
    skin = canonical_skin(capture, neutral, to_canonical, cameras=cameras)
    chin = chin_points(skin, mouth, seed=cfg.seed)
    coarse = with_chin(coarse, chin)
    if chin is None:
        print(
            f"{len(mouth.means)} points inside the mouth are taken for skin: the first "
            "clouds show too little of the chin to tell how the jaw moves "
            "(--gaussians.init-frames takes more)"
        )
        return coarse, None
    motion = jax.vmap(partial(jaw_motion, coarse, octaves=cfg.forward.octaves))
    codes = np.array([capture.driving(t).expr for t in training])
    rotations, translations = jax.jit(motion)(jnp.asarray(codes))
    points = bind_mouth(mouth, np.asarray(rotations), np.asarray(translations))
    with_jaw = int(points.bindings[:, JAW].sum())
    print(f"{len(mouth.means)} points inside the mouth, {with_jaw} go with the jaw")
    return coarse, points
