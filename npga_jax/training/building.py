"""From settings to the method: the one place that joins them."""

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np

from npga_jax.avatar import (
    DensityControl,
    Forward,
    LossTerm,
    Method,
    blendshape_detail,
    code_reading_forward,
    residual_unet,
    still,
    with_chin,
)
from npga_jax.core import Params
from npga_jax.distillation import DistillOptions, Person, distilled_forward
from npga_jax.rasterizer import rasterization
from npga_jax.training import losses
from npga_jax.training.density import DensityOptions, adaptive, explore, relocate
from npga_jax.training.settings import DensityConfig, TrainConfig

EXPLORE_RATE = 0.1
"""Of `density.explore`, standard deviations a step."""
_RESIDUAL, _RESIDUAL_BESIDE_F = 0.01, 0.1


def default_method(cfg: TrainConfig) -> Method:
    """The method that the settings describe.

    Args:
      cfg: with `forward.source` decided; "auto" counts as "distilled".
    """
    has_forward = cfg.forward.source != "none"
    return Method(
        forward=distilled(cfg) if has_forward else still(),
        detail=blendshape_detail(
            cfg.detail, reach=cfg.forward.detail_reach if has_forward else 1.0
        ),
        screen=residual_unet(cfg.screen) if cfg.loss.screen else None,
        terms=loss_terms(cfg),
        density=density_control(cfg.density, fill=cfg.gaussians.init_share),
        rasterize_fn=rasterization,
        code_noise=cfg.detail.code_noise,
    )


def distill_options(cfg: TrainConfig) -> DistillOptions:
    """The settings of F as the distillation takes them."""
    sizes = ("hidden", "layers", "octaves", "steps")
    return DistillOptions(**{name: getattr(cfg.forward, name) for name in sizes})


@dataclasses.dataclass(frozen=True)
class _Distillation:
    """F of a person: the same cache entry for all who ask with the same settings."""

    options: DistillOptions
    cache_dir: Path | None = dataclasses.field(compare=False)
    """Changes nothing in what is made."""

    def __call__(self, person: Person, codes: np.ndarray, num_features: int) -> Params:
        params = distilled_forward(
            person,
            codes,
            num_features=num_features,
            options=self.options,
            cache_dir=self.cache_dir,
        )
        return with_chin(params, None)


def distilled(cfg: TrainConfig) -> Forward:
    """F, distilled from the head model of the person."""
    fit = _Distillation(distill_options(cfg), cfg.capture.cache_dir)
    return code_reading_forward(cfg.forward).replace(fit=fit)


def loss_terms(cfg: TrainConfig) -> tuple[LossTerm, ...]:
    """The terms of the settings; those of weight zero are not there."""
    loss = cfg.loss
    residual = loss.residual
    if residual is None:
        is_alone = cfg.forward.source == "none"
        residual = _RESIDUAL if is_alone else _RESIDUAL_BESIDE_F
    image = {"guides_density": True}
    terms = (
        LossTerm("l1", loss.l1, losses.l1, **image),
        LossTerm("ssim", loss.ssim, losses.ssim, **image),
        LossTerm("alpha", loss.alpha, losses.alpha, needs_mattes=True, **image),
        LossTerm("parts", loss.parts, losses.parts),
        LossTerm(
            "screen",
            loss.screen,
            partial(losses.screen, l1_weight=loss.l1, ssim_weight=loss.ssim),
            start=cfg.screen.start,
            needs_screen=True,
        ),
        LossTerm(
            "lpips",
            loss.lpips,
            partial(losses.lpips, crop=loss.lpips_crop, lpips_fn=losses.alex_lpips),
            start=loss.lpips_from,
        ),
        LossTerm("residual", residual, losses.residual),
        LossTerm(
            "laplacian_features",
            loss.laplacian_features,
            losses.laplacian_features,
            needs_graph=True,
        ),
        LossTerm(
            "laplacian_dynamics",
            loss.laplacian_dynamics,
            losses.laplacian_dynamics,
            needs_graph=True,
        ),
        LossTerm("scale", loss.scale, losses.scale),
        LossTerm("opacity", loss.opacity, losses.opacity),
    )
    return tuple(term for term in terms if term.weight)


def density_control(cfg: DensityConfig, *, fill: float) -> DensityControl:
    """Density control as the settings have it.

    Args:
      fill: share of the slots that are filled at the start, where there is any.
    """
    if cfg.strategy == "none":
        return DensityControl()
    options = DensityOptions(
        growth=cfg.growth,
        peak_weight=cfg.peak_weight,
        error_weight=cfg.error_weight,
    )
    is_mcmc = cfg.strategy == "mcmc"
    events = ()
    if cfg.start <= cfg.stop:
        events = tuple(np.linspace(cfg.start, cfg.stop, cfg.events).tolist())
    return DensityControl(
        events=events,
        views=cfg.views,
        change=partial(relocate if is_mcmc else adaptive, options=options),
        explore=partial(explore, rate=EXPLORE_RATE) if is_mcmc else None,
        fill=fill,
    )
