"""From settings and a capture to the pieces of a run: the one place that joins them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from npga_jax.avatar import (
    HYPER_SCALE,
    deform_gaussians,
    head_viewmats,
    init_detail,
    init_gaussians,
    init_screen,
    make_deformation,
    refine_image,
    render_views,
    with_chin,
)
from npga_jax.core import (
    AvatarParams,
    Batch,
    Gaussians,
    Params,
    RasterizeFn,
)
from npga_jax.data import Capture, Footage, Views, load_batch, plan_step
from npga_jax.distillation import (
    DistillOptions,
    Person,
    distilled_forward,
    initial_forward,
)
from npga_jax.metrics import make_lpips
from npga_jax.nphm import METRES_PER_UNIT
from npga_jax.rasterizer import rasterization
from npga_jax.training.initial_points import InitialPoints
from npga_jax.training.laplacian import Graph, build_graph, empty_graph
from npga_jax.training.losses import LossWeights
from npga_jax.training.optim import GroupRates, make_optimizer
from npga_jax.training.settings import TrainConfig
from npga_jax.training.step import (
    Perceptual,
    TrainState,
    downscale_batch,
    init_train_state,
    make_train_step,
)

NEIGHBOURS = 10
"""Of every Gaussian, for the Laplacian terms."""
EXPLORE_RATE = 0.1
"""Of `density.explore`, standard deviations a step."""


def group_rates(cfg: TrainConfig) -> GroupRates:
    """Step sizes of the settings; G's depends on whether it has F beside it."""
    rates = GroupRates(**{k: getattr(cfg.optim, k) for k in GroupRates._fields})
    if cfg.forward.source == "distilled":
        rates = rates._replace(detail=cfg.forward.detail_rate)
    return rates


def make_run_optimizer(cfg: TrainConfig) -> optax.GradientTransformation:
    """The optimiser with the settings bound."""
    return make_optimizer(group_rates(cfg), cfg.steps)


def distill_options(cfg: TrainConfig) -> DistillOptions:
    """The settings of F as the distillation takes them."""
    sizes = ("hidden", "layers", "octaves", "steps")
    return DistillOptions(**{name: getattr(cfg.forward, name) for name in sizes})


def person_forward(cfg: TrainConfig, person: Person, codes: np.ndarray) -> Params:
    """F of a person: the same cache entry for all who ask with the same settings.

    Args:
      codes: [T, E] of the training frames.
    """
    return distilled_forward(
        person,
        codes,
        num_features=cfg.gaussians.feature_dim,
        options=distill_options(cfg),
        cache_dir=cfg.capture.cache_dir,
    )


def state_from_points(
    cfg: TrainConfig,
    points: InitialPoints,
    *,
    num_expr: int,
    coarse: Params,
    code_std: np.ndarray | float,
    code_filter: np.ndarray | None = None,
) -> TrainState:
    """State whose Gaussians sit on points in the canonical head frame.

    Args:
      coarse: weights of F.
      code_std: [E] or [] the unit in which G reads codes.
      code_filter: [E, E] what it hears of them; None: all.
    """
    cloud_key, detail_key, screen_key = jax.random.split(jax.random.key(cfg.seed), 3)
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
    detail = init_detail(
        detail_key,
        num_features=cfg.gaussians.feature_dim,
        num_expr=num_expr,
        hidden=cfg.detail.hidden,
        layers=cfg.detail.layers,
        octaves=cfg.detail.octaves,
        code_std=code_std,
        code_filter=code_filter,
    )
    screen = {}
    if cfg.loss.screen > 0:
        screen = init_screen(
            screen_key, num_features=cfg.gaussians.feature_dim, width=cfg.screen.width
        )
    params = AvatarParams(gaussians, detail=detail, coarse=coarse, screen=screen)
    graph = empty_graph(alive.shape[0], NEIGHBOURS if has_graph(cfg) else 1)
    return init_train_state(params, alive, make_run_optimizer(cfg), graph)


def neighbour_graph(cfg: TrainConfig, gaussians: Gaussians, alive: jax.Array) -> Graph:
    """Neighbours of the cloud as it is; none where training does not need them."""
    if not has_graph(cfg):
        return empty_graph(alive.shape[0])
    has_hyper = cfg.forward.source == "distilled"
    return build_graph(
        gaussians,
        alive,
        neighbours=NEIGHBOURS,
        hyper_columns=min(2, cfg.gaussians.feature_dim) if has_hyper else 0,
        hyper_scale=METRES_PER_UNIT / HYPER_SCALE,
    )


def state_template(cfg: TrainConfig, num_expr: int) -> TrainState:
    """Shapes and types of the state, without computing it."""
    point = np.zeros((1, 3), np.float32)
    points = InitialPoints(
        point, point, np.ones(1, np.float32), point[:, :0], point[:, :2]
    )

    def make():
        coarse = {}
        if cfg.forward.source == "distilled":
            coarse = with_chin(
                initial_forward(
                    jnp.zeros(num_expr),
                    1.0,
                    num_features=cfg.gaussians.feature_dim,
                    options=distill_options(cfg),
                ),
                None,
            )
        return state_from_points(
            cfg, points, num_expr=num_expr, coarse=coarse, code_std=1.0
        )

    return jax.eval_shape(make)


class Stage(NamedTuple):
    """What a compiled step depends on that changes during a run."""

    downscale: int
    has_lpips: bool
    has_screen: bool = False


def stage_at(cfg: TrainConfig, step: int) -> Stage:
    """The stage of a step; counted from 0."""
    share = step / cfg.steps
    return Stage(
        downscale=2 ** sum(share < s for s in cfg.halvings),
        has_lpips=cfg.loss.lpips > 0 and share >= cfg.loss.lpips_from,
        has_screen=cfg.loss.screen > 0 and share >= cfg.screen.start,
    )


def loss_weights(cfg: TrainConfig, footage: Footage, stage: Stage) -> LossWeights:
    """The weights of the settings; without mattes there is no opacity to compare."""
    weights = {name: getattr(cfg.loss, name) for name in LossWeights._fields}
    if cfg.forward.source == "distilled":
        weights["residual"] = cfg.forward.detail_residual
    return LossWeights(**weights)._replace(
        alpha=cfg.loss.alpha if footage.has_mattes else 0.0,
        lpips=cfg.loss.lpips if stage.has_lpips else 0.0,
        screen=cfg.loss.screen if stage.has_screen else 0.0,
    )


def has_graph(cfg: TrainConfig) -> bool:
    """Whether training needs to know neighbours."""
    return cfg.loss.laplacian_features > 0 or cfg.loss.laplacian_dynamics > 0


def make_run_step(
    cfg: TrainConfig,
    footage: Footage,
    *,
    max_isects: int,
    axis_name: str | None,
    stage: Stage,
    rasterize_fn: RasterizeFn = rasterization,
) -> Callable:
    """The training step of a stage with the settings bound.

    Args:
      footage: a capture, or what stands for one.
    """
    weights = loss_weights(cfg, footage, stage)
    perceptual = None
    if weights.lpips:
        perceptual = Perceptual(make_lpips("alex"), cfg.loss.lpips_crop)
    return make_train_step(
        optimizer=make_run_optimizer(cfg),
        width=footage.width,
        height=footage.height,
        max_isects=max_isects,
        **make_deformation(cfg, footage.expr_names)._asdict(),
        rasterize_fn=rasterize_fn,
        screen_fn=refine_image,
        loss_weights=weights,
        perceptual=perceptual,
        code_noise=cfg.detail.code_noise,
        explore_rate=EXPLORE_RATE if cfg.density.strategy == "mcmc" else 0.0,
        downscale=stage.downscale,
        seed=cfg.seed,
        axis_name=axis_name,
    )


def make_isects_fn(
    cfg: TrainConfig, capture: Capture, train: Sequence[Views], *, downscale: int = 1
) -> Callable[[TrainState], int]:
    """A function that counts the intersections of a state's cloud.

    It gives the largest number over a few training views, and is compiled once.
    """
    deformation = make_deformation(cfg, capture.expr_names)
    views = min(4, len(train[0].cameras))
    plans = [
        plan_step(step, seed=cfg.seed, train=train, views_per_step=views)
        for step in range(2)
    ]

    @jax.jit
    def count(params, alive, batch: Batch):
        batch = downscale_batch(batch, downscale)
        splats, _ = deform_gaussians(params, alive, batch.expr, **deformation._asdict())
        out = render_views(
            splats,
            head_viewmats(batch.viewmats, batch.world_from_head),
            batch.Ks,
            width=capture.width // downscale,
            height=capture.height // downscale,
            max_isects=1,
        )
        return jnp.max(out.num_isects)

    def largest(state: TrainState) -> int:
        batches = (load_batch(capture, *plan) for plan in plans)
        return max(int(count(state.params, state.alive, b)) for b in batches)

    return largest
