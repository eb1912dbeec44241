"""A whole training step without a capture: settings, shapes, and values to run it on.

The head is an ellipsoid of Gaussians seen from 1 m; F and G have random weights, which
cost what trained ones do.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from bench_scenes import make_head_scene

from npga_jax.avatar import Method, code_space_template
from npga_jax.core import Batch, RasterizeFn
from npga_jax.training import (
    PRESETS,
    InitialPoints,
    PresetName,
    TrainConfig,
    TrainState,
    default_method,
    make_run_step,
    parallel,
    stage_at,
    state_from_points,
)

CODE_LENGTH = 48
"""Of the packaged head model's expressions."""


class SyntheticFootage(NamedTuple):
    """Stands for a capture (`data.capture.Footage`)."""

    width: int
    height: int
    expr_names: tuple[str, ...] = tuple(f"nphm_{i}" for i in range(CODE_LENGTH))
    has_mattes: bool = True


def step_config(preset: PresetName, num_gaussians: int) -> TrainConfig:
    """A preset with F, as training has it once codes of the head tracker are there."""
    cfg = PRESETS[preset]
    return dataclasses.replace(
        cfg,
        forward=dataclasses.replace(cfg.forward, source="distilled"),
        gaussians=dataclasses.replace(cfg.gaussians, capacity=num_gaussians),
    )


def step_method(cfg: TrainConfig, rasterize_fn: RasterizeFn) -> Method:
    """The method of the settings with a rasterizer."""
    return default_method(cfg).replace(rasterize_fn=rasterize_fn)


def make_last_step(
    cfg: TrainConfig,
    footage: SyntheticFootage,
    max_isects: int,
    rasterize_fn: RasterizeFn,
) -> Callable:
    """The step that ends a run, when all its losses have joined in."""
    method = step_method(cfg, rasterize_fn)
    return make_run_step(
        cfg,
        method,
        footage,
        stage_at(cfg, method, cfg.steps - 1, has_mattes=footage.has_mattes),
        max_isects=max_isects,
        axis_name=parallel.AXIS_NAME,
    )


def batch_shapes(footage: SyntheticFootage, num_views: int) -> Batch:
    """Shapes and types of what the loader delivers."""
    size = (num_views, footage.height, footage.width)
    return jax.eval_shape(
        lambda: Batch(
            rgb=jnp.zeros((*size, 3), jnp.uint8),
            alpha=jnp.zeros(size, jnp.uint8),
            parts=jnp.zeros(size, jnp.uint8),
            viewmats=jnp.zeros((num_views, 4, 4), jnp.float32),
            Ks=jnp.zeros((num_views, 3, 3), jnp.float32),
            world_from_head=jnp.zeros((4, 4), jnp.float32),
            expr=jnp.zeros(len(footage.expr_names), jnp.float32),
        )
    )


def make_batch(footage: SyntheticFootage, num_views: int) -> Batch:
    """Smooth pictures of nobody, seen by cameras side by side."""
    scene = make_head_scene(1, footage.width, footage.height)
    rng = np.random.default_rng(0)
    viewmats = np.tile(scene["viewmat"], (num_views, 1, 1))
    viewmats[:, 0, 3] = np.linspace(-0.02, 0.02, num_views)
    size = (num_views, footage.height, footage.width)
    across = np.linspace(0, 255, footage.width, dtype=np.uint8)
    return Batch(
        rgb=np.broadcast_to(across[:, None], (*size, 3)).copy(),
        alpha=np.full(size, 255, np.uint8),
        parts=np.zeros(size, np.uint8),
        viewmats=viewmats,
        Ks=np.tile(scene["K"], (num_views, 1, 1)),
        world_from_head=np.eye(4, dtype=np.float32),
        expr=rng.normal(size=len(footage.expr_names)).astype(np.float32),
    )


def make_state(cfg: TrainConfig, footage: SyntheticFootage) -> TrainState:
    """A state before the first step; every slot holds a Gaussian."""
    count = cfg.gaussians.capacity
    scene = make_head_scene(count, footage.width, footage.height)
    radius = np.linalg.norm(scene["means"], axis=1).mean()
    points = InitialPoints(
        means=scene["means"],
        rgb=np.clip(scene["colors"], 0.0, 1.0),
        # Points that share a sphere evenly are this far apart.
        spacing=np.full(count, radius * np.sqrt(4 * np.pi / count), np.float32),
        hyper=np.zeros((count, 0), np.float32),
        bindings=np.zeros((count, 2), np.float32),
    )
    return state_from_points(
        cfg, default_method(cfg), points, code_space_template(footage.expr_names)
    )
