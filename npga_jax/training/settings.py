"""Settings of a training run, and the presets: data only, no JAX.

Each field's text is its command-line help; defaults and bounds stand beside it. No room
but `training` and `app` reads a `TrainConfig`.
"""

import dataclasses
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

from npga_jax.avatar import (
    DetailConfig,
    ForwardConfig,
    GaussianConfig,
    ScreenConfig,
)
from npga_jax.core import (
    InputError,
    Only,
    Range,
    check_effects,
    check_ranges,
    option_from_argv,
    take_types,
)
from npga_jax.data import CaptureConfig

PresetName = Literal["demo", "quick", "long", "paper"]

_WITH_DENSITY = Only("density.strategy", ("adaptive", "mcmc"))
_ADAPTIVE = Only("density.strategy", ("adaptive",))
_WITH_LPIPS = Only("loss.lpips")


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms; one of weight zero is not computed."""

    l1: float = 0.8
    ssim: float = 0.2
    alpha: Annotated[float, Only("capture.mattes")] = 0.1
    parts: float = 0.0
    """l1 of eyes and mouth once more, where the capture has label maps; refused where
    no training frame has one."""
    screen: float = 0.0
    """Image terms of what the screen-space network makes of the rendering; 0: there is
    no such network."""
    lpips: float = 0.0
    """Perceptual distance (AlexNet) of a crop around the face."""
    lpips_from: Annotated[float, Range(0, 1), _WITH_LPIPS] = 0.6
    """Share of the steps after which the perceptual loss starts."""
    lpips_crop: Annotated[int, Range(32), _WITH_LPIPS] = 128
    """Pixels along an edge of the crop."""
    residual: Annotated[float | None, Only("detail.enabled")] = None
    """Squared size of the detail network's residuals, in their own output scales;
    default: 0.1 beside F, 0.01 without."""
    laplacian_features: float = 0.0
    """Differences of features between neighbours."""
    laplacian_dynamics: float = 0.0
    """Differences between neighbours of what the expression does to them."""
    scale: float = 0.0
    """Scales beyond 8 mm."""
    opacity: float = 0.0
    """Mean opacity."""


@dataclasses.dataclass(frozen=True)
class DensityConfig:
    """When and how Gaussians are added and dropped."""

    strategy: Literal["adaptive", "mcmc", "none"] = "adaptive"
    """adaptive: refine what is wrong, drop what is not seen; mcmc: relocate the faint,
    in proportion to opacity, with noise on centres."""
    start: Annotated[float, Range(0, 1), _WITH_DENSITY] = 0.06
    """Share of the steps before the first event."""
    stop: Annotated[float, Range(0, 1), _WITH_DENSITY] = 0.6
    """Share of the steps after which the cloud stays as it is."""
    events: Annotated[int, Range(1), _WITH_DENSITY] = 10
    """Number of events, evenly spread between."""
    views: Annotated[int, Range(1), _WITH_DENSITY] = 32
    """Views rendered to decide at an event."""
    growth: Annotated[float, Range(0, 1), _WITH_DENSITY] = 0.08
    """New Gaussians an event, as a share of the capacity."""
    peak_weight: Annotated[float, Range(0, 1), _ADAPTIVE] = 0.5
    """Share of the largest value over views in what decides; the rest is the mean.
    What is wrong in few expressions shows in the peak."""
    error_weight: Annotated[float, Range(0, 1), _ADAPTIVE] = 0.5
    """Share of image errors in what decides; the rest are screen-space gradients."""


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Adam step sizes per group; those of means, features and networks decay."""

    means: float = 1.6e-4
    """Metres per step."""
    detail: Annotated[float | None, Only("detail.enabled")] = None
    """Of G; default: 5e-4 beside F, 1.5e-3 without."""
    coarse: Annotated[float, Only("forward.tuned")] = 5e-5
    """Of F, which moves Gaussians coarsely, where G adds detail."""
    screen: Annotated[float, Only("loss.screen")] = 1e-3
    quats: float = 1e-3
    log_scales: float = 5e-3
    logit_opacities: float = 5e-2
    sh: float = 2.5e-3
    features: float = 2.5e-3
    final_fraction: Annotated[float, Range(0, 1, is_open=True)] = 0.05
    """Step sizes of means and networks at the end, as a fraction of the start."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Train a drivable Gaussian head avatar from a multi-view capture."""

    # The defaults are the preset "quick"; the others state what differs. A capture that
    # is given says itself what drives the avatar: CaptureConfig(driving="nphm", ...).

    subject: str = "demo"
    """Participant as its folder is called ("074"), or "demo" for the packaged one."""
    data_root: Path | None = None
    """Folder that holds the subjects; default: $NPGA_DATA."""
    output: Path | None = None
    """Run folder; default: runs/<subject>/<time>."""
    preset: PresetName = "quick"
    """quick: 24 minutes on 2 CPU cores; long: the same for hours; paper: one large GPU;
    demo: a few minutes, and what the packaged subject gets unless told otherwise."""
    method: Path | None = None
    """A Python file with `def method(cfg) -> Method`: your own loss, F, G, density
    control or renderer (docs/extending.md)."""
    steps: Annotated[int, Range(1)] = 8_000
    """Optimiser steps of the whole run."""
    save_every: Annotated[int, Range(1)] = 1_000
    """Steps between checkpoints."""
    resume: bool = False
    """Continue what is in --output."""
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    """Seed of initialisation and of the order of the frames."""
    halvings: Annotated[tuple[float, ...], Range(0, 1, is_open=True)] = ()
    """Shares of the steps, below 1, at which the size of the images doubles, ascending:
    0.2 0.5 starts at a quarter of the size."""
    balance: Annotated[float, Range(0, 4)] = 0.0
    """How much more often frames with rare expressions come: 0 not at all, 1 in
    proportion to their distance from the most similar ones."""
    average_from: Annotated[float, Range(0, 1)] = 0.95
    """Share of the steps after which weights are averaged: a run ends with their mean,
    which does not show what the last frames were. 1: it ends with the last weights."""
    views_per_step: Annotated[int, Range(1)] = 1
    """Cameras rendered per step, all of one timestep; devices share them evenly."""
    num_devices: int = 0
    """Devices to train on; 0: as many as share --views-per-step evenly. A CPU is one
    device that uses all its cores; a larger number splits it, which is for tests."""
    max_isects: Annotated[int, Range(0, 2**31 - 1)] = 0
    """Capacity for tile intersections per view; 0: measured at the start, and grown."""
    log_every: Annotated[int, Range(1)] = 20
    """Steps between progress lines."""
    preview_every: Annotated[int, Range(1)] = 1_000
    """Steps between preview pictures."""
    test_every: int = 0
    """Steps between tests on a few held-out images, kept in curve.jsonl; they decide
    nothing, and their time is not counted as training. 0: none."""
    evaluate: bool = True
    """Evaluate and write videos at the end."""
    prior: Path | None = None
    """Head model (.npz or MonoNPHM checkpoint) for tracking where codes are missing,
    and for F; default: the packaged one."""
    capture: CaptureConfig = CaptureConfig(driving="nphm")
    gaussians: GaussianConfig = GaussianConfig()
    forward: ForwardConfig = ForwardConfig()
    detail: DetailConfig = DetailConfig()
    screen: ScreenConfig = ScreenConfig()
    loss: LossConfig = LossConfig()
    density: DensityConfig = DensityConfig()
    optim: OptimConfig = OptimConfig()

    def __post_init__(self) -> None:
        take_types(self)


PRESETS: dict[str, TrainConfig] = {
    "demo": TrainConfig(
        preset="demo",
        steps=2_500,
        save_every=500,
        preview_every=500,
        gaussians=GaussianConfig(capacity=12_000, init_frames=6),
    ),
    "quick": TrainConfig(),
    "long": TrainConfig(
        preset="long",
        steps=24_000,
        test_every=2_000,
        capture=CaptureConfig(width=550, driving="nphm"),
        gaussians=GaussianConfig(capacity=120_000, init_frames=8),
        loss=LossConfig(lpips=0.02),
    ),
    "paper": TrainConfig(
        preset="paper",
        steps=200_000,
        save_every=5_000,
        views_per_step=4,
        preview_every=5_000,
        log_every=100,
        capture=CaptureConfig(width=550, driving="nphm"),
        gaussians=GaussianConfig(capacity=250_000, init_frames=12),
        forward=ForwardConfig(tuned=True, detail_reach=1.0),
        detail=DetailConfig(hidden=256, layers=6),
        screen=ScreenConfig(width=32, start=0.25),
        loss=LossConfig(
            screen=1.0,
            residual=0.01,
            lpips=0.1,
            lpips_from=0.06,
            lpips_crop=256,
            laplacian_features=0.01,
            laplacian_dynamics=0.01,
        ),
        optim=OptimConfig(final_fraction=0.01),
    ),
}


def validate(cfg: TrainConfig) -> None:
    """Checks the numbers that can be checked without a capture and devices.

    Raises:
      InputError: for the first setting that no run can have.
    """
    _preset_of(cfg)
    check_ranges(cfg)
    if list(cfg.halvings) != sorted(cfg.halvings) or 1 in cfg.halvings:
        raise InputError(
            f"--halvings {' '.join(map(str, cfg.halvings))}: expected ascending shares "
            "below 1; at 1, images would never have their full size."
        )


_DECIDING = {
    "forward": "forward",
    "detail": "detail",
    "screen": "loss.screen",
    "terms": "loss",
    "density": "density",
}
"""Parts of a method, and the settings that decide about them, or their group."""


def check_choices(cfg: TrainConfig, own_parts: Collection[str] = ()) -> None:
    """Refuses what was chosen and would do nothing.

    Settings begin with a preset or, made by hand, with the defaults: what is as in one
    of them was not chosen. What somebody's own part of a method does with settings,
    only its author knows: there nothing is refused.

    Args:
      own_parts: fields of the method that are not those of the settings.

    Raises:
      InputError: for the first such setting, or a preset that there is not.
    """
    replaced = {_DECIDING[part] for part in own_parts if part in _DECIDING}
    check_effects(cfg, _preset_of(cfg), TrainConfig(), left_out=replaced)


def _preset_of(cfg: TrainConfig) -> TrainConfig:
    if cfg.preset not in PRESETS:
        raise InputError(
            f"--preset {cfg.preset}: there is no such preset; expected one of "
            f"{', '.join(PRESETS)}."
        )
    return PRESETS[cfg.preset]


def preset_from_argv(argv: list[str] | None = None) -> TrainConfig:
    """Finds `--preset` and `--subject` before parsing: they choose the defaults.

    Without a preset, the packaged subject gets "demo" and any other "quick". An unknown
    name yields one of them too: the parser that runs next names the mistake.
    """
    argv = sys.argv[1:] if argv is None else argv
    is_demo = option_from_argv("--subject", argv) in (None, "demo")
    fallback = "demo" if is_demo else "quick"
    name = option_from_argv("--preset", argv) or fallback
    return PRESETS.get(name, PRESETS[fallback])
