"""The state before the first step: F, and Gaussians on the points of some frames."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.avatar import (
    HYPER_SCALE,
    JAW,
    CodeSpace,
    Method,
    code_space_template,
    init_gaussians,
    init_params,
    wiener_filter,
)
from npga_jax.core import Gaussians, Graph, InputError, Params
from npga_jax.data import (
    INNER_MOUTH,
    Capture,
    Timestep,
    Views,
    expression_codes,
)
from npga_jax.distillation import Person, canonicalize
from npga_jax.nphm import METRES_PER_UNIT
from npga_jax.training.initial_points import (
    ON_SKULL,
    InitialPoints,
    gather_points,
    join,
    most_neutral,
    most_varied,
)
from npga_jax.training.laplacian import build_graph, empty_graph
from npga_jax.training.mouth import (
    bind_mouth,
    canonical_skin,
    chin_points,
    mouth_points,
)
from npga_jax.training.settings import TrainConfig
from npga_jax.training.stages import run_optimizer
from npga_jax.training.state import TrainState, init_train_state

NEIGHBOURS = 10
"""Of every Gaussian, for the Laplacian terms."""
_LEAST_SHARE = 0.1
"""Of the codes' root mean square: the smallest unit of a component."""
_MOST_IN_MOUTH = 0.1
"""Of the first points."""


def code_space(
    names: tuple[str, ...],
    codes: np.ndarray,  # [T, E] of the training frames
    *,
    person: Person | None = None,
    tracking_noise: float = 0.0,
) -> CodeSpace:
    """Units of the codes: the head model's own, or else the training frames'.

    Codes of an unknown tracker may come at any scale. Their unit is each component's
    root mean square, so that a code of zero stays the canonical cloud; components that
    hardly vary get a tenth of what all have on average.

    Args:
      person: of the head model that the codes are of.
      tracking_noise: of codes of the head model, in its units; see `wiener_filter`.
    """
    mean = codes.mean(axis=0)
    if person is not None:
        kept = wiener_filter(codes / person.exp_std, tracking_noise)
        return CodeSpace(names, mean, person.exp_std, kept)
    size = np.sqrt(np.mean(np.square(codes, dtype=np.float64), axis=0))
    typical = float(np.sqrt(np.mean(size**2)))
    std = np.maximum(size, _LEAST_SHARE * typical) if typical else np.ones_like(size)
    return CodeSpace(
        names, mean, std.astype(np.float32), np.eye(len(names), dtype=np.float32)
    )


def state_from_points(
    cfg: TrainConfig,
    method: Method,
    points: InitialPoints,
    codes: CodeSpace,
    forward: Params | None = None,
) -> TrainState:
    """State whose Gaussians sit on points in the canonical head frame.

    Args:
      forward: weights of F, where it has been fitted already.
    """
    cloud_key, networks_key = jax.random.split(jax.random.key(cfg.seed))
    gaussians, alive = init_gaussians(
        jnp.asarray(points.means),
        jnp.asarray(points.rgb),
        cfg.gaussians.init_scale * jnp.asarray(points.spacing),
        hyper=jnp.asarray(points.hyper),
        bindings=jnp.asarray(points.bindings),
        capacity=cfg.gaussians.capacity,
        num_features=cfg.gaussians.feature_dim,
        sh_degree=cfg.gaussians.sh_degree,
        key=cloud_key,
    )
    params = init_params(method, gaussians, codes, networks_key, forward)
    graph = empty_graph(alive.shape[0], NEIGHBOURS if method.needs_graph else 1)
    return init_train_state(params, alive, run_optimizer(cfg), graph)


def state_template(
    cfg: TrainConfig, method: Method, names: tuple[str, ...]
) -> TrainState:
    """Shapes and types of the state, without computing it.

    Args:
      names: of the components of the code.
    """
    point = np.zeros((1, 3), np.float32)
    points = InitialPoints(
        point, point, np.ones(1, np.float32), point[:, :0], point[:, :2]
    )
    return jax.eval_shape(
        lambda: state_from_points(cfg, method, points, code_space_template(names))
    )


def neighbour_graph(
    cfg: TrainConfig, method: Method, gaussians: Gaussians, alive: jax.Array
) -> Graph:
    """Neighbours of the cloud as it is; none where training does not need them."""
    if not method.needs_graph:
        return empty_graph(alive.shape[0])
    has_hyper = method.forward.fit is not None
    return build_graph(
        gaussians,
        alive,
        neighbours=NEIGHBOURS,
        hyper_columns=min(2, cfg.gaussians.feature_dim) if has_hyper else 0,
        hyper_scale=METRES_PER_UNIT / HYPER_SCALE,
    )


def initial_state(
    cfg: TrainConfig,
    method: Method,
    capture: Capture,
    train: Sequence[Views],
    person: Person | None = None,
) -> TrainState:
    """State before the first step, from the clouds of some training frames.

    Args:
      person: whose head model F is fitted to; only where the method's F is.

    Raises:
      InputError: F is made from a head model, and there is none.
    """
    if method.forward.fit is not None and person is None:
        raise InputError(
            "F is made from a head model (`Forward.fit`), and the codes of subject "
            f"{capture.subject}, of '{capture.driving_model}', have none. Use "
            "--forward.source none, an F without `fit`, or codes of the head tracker."
        )
    training = [v.timestep for v in train]
    neutral = most_neutral(capture, training, cfg.gaussians.init_frames)
    max_points = max(1, int(method.density.fill * cfg.gaussians.capacity))
    cameras = train[0].cameras
    gather = partial(gather_points, capture, seed=cfg.seed, cameras=cameras)
    codes = expression_codes(capture, train)
    space = code_space(
        capture.expr_names,
        codes,
        person=person,
        tracking_noise=cfg.detail.tracking_noise,
    )
    forward = None
    if person is None or method.forward.fit is None:
        points = gather(neutral, max_points=max_points)
    else:
        forward = method.forward.fit(person, codes, cfg.gaussians.feature_dim)
        to_canonical = partial(canonicalize, person)
        forward, mouth = _find_mouth(
            cfg,
            method,
            capture,
            training,
            neutral,
            forward,
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
    state = state_from_points(cfg, method, points, space, forward)
    graph = neighbour_graph(cfg, method, state.params.gaussians, state.alive)
    return state._replace(graph=graph)


def _find_mouth(
    cfg: TrainConfig,
    method: Method,
    capture: Capture,
    training: Sequence[Timestep],
    neutral: Sequence[Timestep],
    forward: Params,
    to_canonical: Callable,
    *,
    cameras: Sequence[str],
    max_points: int,
) -> tuple[Params, InitialPoints | None]:
    """F with the chin that shows the jaw's motion, and the points inside the mouth.

    No points where there are no label maps of them, F knows no jaw, or none is wanted.
    """
    jaw = method.forward.jaw
    if not cfg.gaussians.bones or jaw is None:
        return forward, None
    options = {"cameras": cameras, "max_points": max_points, "seed": cfg.seed}
    mouth = mouth_points(capture, training, **options)
    if not len(mouth.means):
        return forward, None
    skin = canonical_skin(capture, neutral, to_canonical, cameras=cameras)
    chin = chin_points(skin, mouth, seed=cfg.seed)
    if chin is None:
        print(
            f"{len(mouth.means)} points inside the mouth are taken for skin: the first "
            "clouds show too little of the chin to tell how the jaw moves "
            "(--gaussians.init-frames takes more)"
        )
        return forward, None
    forward = jaw.with_chin(forward, chin)
    motion = jax.vmap(partial(jaw.motion, forward))
    codes = np.array([capture.driving(t).expr for t in training])
    rotations, translations = jax.jit(motion)(jnp.asarray(codes))
    points = bind_mouth(mouth, np.asarray(rotations), np.asarray(translations))
    with_jaw = int(points.bindings[:, JAW].sum())
    print(f"{len(mouth.means)} points inside the mouth, {with_jaw} go with the jaw")
    return forward, points
