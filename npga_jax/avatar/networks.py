"""The networks of an avatar with their settings bound: F, G, the screen-space one."""

from functools import partial

import jax
import jax.numpy as jnp

from npga_jax.avatar.detail import (
    blind_to_features,
    detail_residuals,
    init_detail,
    no_detail,
    within_reach,
)
from npga_jax.avatar.forward import (
    forward_motion,
    frozen_motion,
    init_forward,
    jaw_motion,
    no_motion,
    with_chin,
)
from npga_jax.avatar.method import CodeSpace, Forward, Jaw, Network
from npga_jax.avatar.screen import init_screen, refine_image
from npga_jax.avatar.settings import DetailConfig, ForwardConfig, ScreenConfig
from npga_jax.core import Params


def _no_weights(key: jax.Array, codes: CodeSpace, num_features: int) -> Params:
    del key, codes, num_features
    return {}


def _init_forward(
    key: jax.Array, codes: CodeSpace, num_features: int, *, cfg: ForwardConfig
) -> Params:
    params = init_forward(
        key,
        num_features=num_features,
        code_mean=codes.mean,
        code_std=codes.std,
        hidden=cfg.hidden,
        layers=cfg.layers,
        octaves=cfg.octaves,
    )
    return with_chin(params, None)


def _init_detail(
    key: jax.Array, codes: CodeSpace, num_features: int, *, cfg: DetailConfig
) -> Params:
    return init_detail(
        key,
        num_features=num_features,
        num_expr=len(codes.names),
        hidden=cfg.hidden,
        layers=cfg.layers,
        octaves=cfg.octaves,
        code_std=jnp.asarray(codes.std),
        code_filter=jnp.asarray(codes.kept),
    )


def _init_screen(
    key: jax.Array, codes: CodeSpace, num_features: int, *, cfg: ScreenConfig
) -> Params:
    del codes
    return init_screen(key, num_features=num_features, width=cfg.width)


def still() -> Forward:
    """F that moves nothing: G alone then moves the Gaussians."""
    return Forward(init=_no_weights, apply=no_motion, moves=False)


def code_reading_forward(cfg: ForwardConfig) -> Forward:
    """F as one network that reads the code in every layer, not fitted to anything."""
    motion_fn = forward_motion if cfg.tuned else frozen_motion
    return Forward(
        init=partial(_init_forward, cfg=cfg),
        apply=partial(motion_fn, octaves=cfg.octaves),
        jaw=Jaw(with_chin, partial(jaw_motion, octaves=cfg.octaves)),
    )


def blendshape_detail(cfg: DetailConfig, *, reach: float = 1.0) -> Network:
    """G as smooth fields of learned blendshapes.

    Args:
      reach: share of its motion that it has (`within_reach`).
    """
    if not cfg.enabled:
        return Network(init=partial(_init_detail, cfg=cfg), apply=no_detail)
    apply = partial(detail_residuals, octaves=cfg.octaves)
    if not cfg.reads_features:
        apply = partial(blind_to_features, detail_fn=apply)
    if reach != 1.0:
        apply = partial(within_reach, detail_fn=apply, reach=reach)
    return Network(init=partial(_init_detail, cfg=cfg), apply=apply)


def residual_unet(cfg: ScreenConfig) -> Network:
    """The screen-space network."""
    return Network(init=partial(_init_screen, cfg=cfg), apply=refine_image)
