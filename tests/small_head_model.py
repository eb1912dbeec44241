"""Head models that are small enough for tests: with random weights, and a ball."""

import dataclasses

import jax
import numpy as np

from npga_jax.nphm.config import NPHMConfig
from npga_jax.nphm.model import HeadModel, init_params

CONFIG = NPHMConfig(
    num_anchors=5,
    num_symm_pairs=2,
    num_neighbors=3,
    lat_dim_glob=3,
    lat_dim_loc_geo=2,
    lat_dim_loc_app=2,
    lat_dim_exp=4,
    lat_dim_id=3,
    hidden_dim_geo=6,
    num_layers_geo=2,
    hidden_dim_app=5,
    num_layers_app=2,
    hidden_dim_exp=6,
    num_layers_exp=3,
    hidden_dim_pos=4,
    bottleneck_dim=2,
)
CONFIGS = {
    "whole": CONFIG,
    "without colour": dataclasses.replace(CONFIG, hidden_dim_app=0),
    "without hyper": dataclasses.replace(CONFIG, num_hyper=0, blend_std=4),
}

TINY = NPHMConfig(
    num_anchors=11,
    num_symm_pairs=4,
    num_neighbors=8,
    lat_dim_glob=4,
    lat_dim_loc_geo=2,
    lat_dim_exp=3,
    lat_dim_id=4,
    hidden_dim_geo=12,
    num_layers_geo=2,
    hidden_dim_app=0,
    hidden_dim_exp=12,
    num_layers_exp=4,
)
"""A head with mirror pairs, as small as its parts allow."""


def make_model(cfg: NPHMConfig = CONFIG, seed: int = 0) -> HeadModel:
    """Random weights, drawn by NumPy, which has nothing to compile."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(
        lambda key: init_params(key, cfg, np.zeros((cfg.num_anchors, 3))),
        jax.ShapeDtypeStruct((2,), np.uint32),
    )
    draw = lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32)  # noqa: E731
    return HeadModel(cfg, jax.tree.map(draw, shapes))


BALL_RADIUS = 0.35
"""NPHM units."""
BALL = dataclasses.replace(
    CONFIG,
    num_anchors=1,
    num_symm_pairs=0,
    num_neighbors=1,
    lat_dim_glob=3,
    lat_dim_loc_geo=1,
    lat_dim_loc_app=1,
    hidden_dim_geo=64,
    num_layers_geo=1,
    hidden_dim_exp=16,
)


def make_ball(motion: float = 0.02, seed: int = 0) -> HeadModel:
    """A head that is a ball, and deforms smoothly and not in the same way anywhere.

    The mean of max(n . x, 0) over directions n that cover the sphere is |x| / 4. Both
    local networks say that; the only anchor lies outside, for blending has no width at
    an anchor that is alone.

    Args:
      motion: NPHM units that points move by, about, for codes of the order of 1.
    """
    params = make_model(BALL, seed).params
    count = BALL.hidden_dim_geo
    height = 1 - (2 * np.arange(count) + 1) / count
    angle = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    around = np.sqrt(1 - height**2)[:, None]
    normals = np.stack([np.cos(angle), np.sin(angle)], axis=1) * around
    normals = np.concatenate([normals, height[:, None]], axis=1)
    anchor = np.array([0, 0, 2], np.float32)
    params["anchors_mean"][:] = anchor
    params["identity"]["pos"][-1] = jax.tree.map(
        np.zeros_like, params["identity"]["pos"][-1]
    )
    first, last = jax.tree.map(np.zeros_like, params["identity"]["geo"])
    start = first["w"].shape[1] - BALL.query_dim
    first["w"][:, start : start + 3] = normals.T
    # The first network sees points from its anchor, the other one as they are.
    first["b"][0] = normals @ anchor
    last["w"][:], last["b"][:] = 4 / count, -BALL_RADIUS
    params["identity"]["geo"] = [first, last]
    deformation = params["deformation"]
    layers = deformation["layers"]
    for layer in (deformation["compressor"], *layers):
        layer["w"] /= np.sqrt(len(layer["w"]))
        layer["b"] *= 0.1
    layers[-1]["w"] *= motion
    layers[-1]["b"] *= motion
    return HeadModel(BALL, params)


def is_same(a: HeadModel, b: HeadModel) -> bool:
    same = jax.tree.map(np.array_equal, a.params, b.params)
    return a.cfg == b.cfg and jax.tree.all(same)
