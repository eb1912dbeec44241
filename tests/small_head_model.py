"""A head model that is small enough for tests, with random weights."""

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
    "local": CONFIG,
    "without colour": dataclasses.replace(CONFIG, hidden_dim_app=0),
    "without hyper": dataclasses.replace(CONFIG, num_hyper=0, blend_std=4),
    "global": dataclasses.replace(
        CONFIG, mode="global", lat_dim_geo_global=7, lat_dim_app_global=6
    ),
}


def make_model(cfg: NPHMConfig = CONFIG, seed: int = 0) -> HeadModel:
    """Random weights, drawn by NumPy, which has nothing to compile."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(
        lambda key: init_params(key, cfg, np.zeros((cfg.num_anchors, 3))),
        jax.ShapeDtypeStruct((2,), np.uint32),
    )
    draw = lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32)  # noqa: E731
    return HeadModel(cfg, jax.tree.map(draw, shapes))


def is_same(a: HeadModel, b: HeadModel) -> bool:
    same = jax.tree.map(np.array_equal, a.params, b.params)
    return a.cfg == b.cfg and jax.tree.all(same)
