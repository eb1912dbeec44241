"""A ball of few Gaussians, cameras around it, and training states that fit it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.avatar.method import LossTerm, Method, code_space_template, init_params
from npga_jax.avatar.model import (
    deform_gaussians,
    head_viewmats,
    init_gaussians,
    render_views,
)
from npga_jax.avatar.settings import DetailConfig, ForwardConfig, GaussianConfig
from npga_jax.core.types import AvatarParams, Batch, RenderOutput, Splats
from npga_jax.training.building import default_method
from npga_jax.training.settings import LossConfig, OptimConfig, TrainConfig
from npga_jax.training.stages import run_optimizer
from npga_jax.training.state import TrainState, init_train_state
from npga_jax.training.step import Frames, make_train_step

WIDTH, HEIGHT = 32, 48
NUM_POINTS, CAPACITY = 60, 64
NUM_EXPR, NUM_FEATURES, HIDDEN, OCTAVES = 3, 4, 8, 2
MAX_ISECTS = 2048
FRAMES = Frames(WIDTH, HEIGHT, MAX_ISECTS)
CODES = code_space_template(("a", "b", "c"))
CONFIG = TrainConfig(
    steps=200,
    gaussians=GaussianConfig(capacity=24_000),
    forward=ForwardConfig(source="none"),
    detail=DetailConfig(hidden=HIDDEN, layers=2, octaves=OCTAVES, code_noise=0.0),
    loss=LossConfig(),
    optim=OptimConfig(),
)
METHOD: Method = default_method(CONFIG)


def terms(*names: str, method: Method = METHOD) -> tuple[LossTerm, ...]:
    """Terms of a method by name; all without names."""
    return tuple(t for t in method.terms if not names or t.name in names)


def make_step(method: Method = METHOD, cfg: TrainConfig = CONFIG, **options):
    """The training step of this scene, not compiled."""
    frames = options.pop("frames", FRAMES)
    chosen = options.pop("terms", method.terms)
    return make_train_step(
        method, chosen, frames, run_optimizer(cfg, method), **options
    )


def ball_points(count: int = NUM_POINTS, seed: int = 0) -> np.ndarray:
    """Points [P, 3] on a sphere of the size of a head."""
    points = np.random.default_rng(seed).normal(size=(count, 3))
    points *= 0.1 / np.linalg.norm(points, axis=-1, keepdims=True)
    return points.astype(np.float32)


def make_params(
    points: np.ndarray | None = None, *, sh_degree: int = 0, seed: int = 0
) -> tuple[AvatarParams, jax.Array]:
    """Parameters before the first step, grey, and the slots in use."""
    points = ball_points() if points is None else points
    cloud_key, detail_key = jax.random.split(jax.random.key(seed))
    gaussians, alive = init_gaussians(
        jnp.asarray(points),
        jnp.full(points.shape, 0.5),
        jnp.full(len(points), 0.015),
        capacity=CAPACITY,
        num_features=NUM_FEATURES,
        sh_degree=sh_degree,
        key=cloud_key,
    )
    return init_params(METHOD, gaussians, CODES, detail_key), alive


def make_state(cfg: TrainConfig = CONFIG, **options) -> TrainState:
    """A state before the first step."""
    return init_train_state(*make_params(**options), run_optimizer(cfg, METHOD))


def make_cameras(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Cameras a metre from the origin: viewmats [C, 4, 4] and Ks [C, 3, 3]."""
    viewmats = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
    for viewmat, angle in zip(viewmats, np.linspace(-0.5, 0.5, count), strict=True):
        c, s = np.cos(angle), np.sin(angle)
        viewmat[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
        viewmat[:3, 3] = [0.01, -0.02, 1.0]
    K = [[110.0, 0, 15], [0, 110, 25], [0, 0, 1]]
    return viewmats, np.array([K] * count, np.float32)


def make_pose(scale: float = 1.0, seed: int = 0) -> np.ndarray:
    """A head pose [4, 4]: a rotation times a scale, and a small translation."""
    rng = np.random.default_rng(seed)
    pose = np.eye(4)
    pose[:3, :3] = scale * np.linalg.qr(rng.normal(size=(3, 3)))[0]
    pose[:3, :3] *= np.sign(np.linalg.det(pose[:3, :3]))
    pose[:3, 3] = rng.uniform(-0.01, 0.01, 3)
    return pose.astype(np.float32)


@jax.jit
def render(splats: Splats, viewmats: jax.Array, Ks: jax.Array) -> RenderOutput:
    """Splats through cameras in the splats' own frame."""
    return render_views(
        METHOD,
        AvatarParams({}, {}, {}, {}),
        splats,
        viewmats,
        Ks,
        width=WIDTH,
        height=HEIGHT,
        max_isects=MAX_ISECTS,
    )[1]


@functools.cache
def make_batches(num_views: int = 2) -> tuple[Batch, ...]:
    """What cameras see of a coloured ball whose redness is its first code."""
    params, alive = make_params()
    splats, _ = deform_gaussians(METHOD, params, alive, np.zeros(3))
    viewmats, Ks = make_cameras(num_views)
    batches = []
    for i, redness in enumerate((0.0, 0.3, 0.7, 1.0)):
        pose = make_pose(seed=i)
        color = jnp.array([0.1 + 0.8 * redness, 0.3, 0.6])
        truth = Splats(
            means=splats.means,
            quats=splats.quats,
            scales=splats.scales,
            opacities=jnp.where(alive, 0.9, 0.0),
            colors=jnp.tile((color - 0.5) / 0.28209479, (CAPACITY, 1, 1)),
        )
        out = render(truth, head_viewmats(jnp.asarray(viewmats), pose), Ks)
        alpha = np.asarray(out.alphas)[..., None]
        rgb = np.asarray(out.colors) - (1 - alpha)
        rgb = rgb / np.maximum(alpha, 1e-3)
        batches.append(
            Batch(
                rgb=(255 * np.clip(rgb, 0, 1)).round().astype(np.uint8),
                alpha=(255 * alpha[..., 0]).round().astype(np.uint8),
                parts=np.zeros(alpha.shape[:3], np.uint8),
                viewmats=viewmats,
                Ks=Ks,
                world_from_head=pose,
                expr=np.array([redness, 0.2, -0.1], np.float32),
            )
        )
    return tuple(batches)
