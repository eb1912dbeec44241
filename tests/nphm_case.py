"""Tiny head models with random weights, and where the goldens are."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.core.types import Params
from npga_jax.nphm.codes import Codes
from npga_jax.nphm.config import NPHMConfig
from npga_jax.nphm.model import init_params

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "nphm" / "golden" / "mono_reduced65_seed11.npz"
"""Reference values of the official code that every clone has."""
GOLDENS = ROOT.parent / "shared" / "goldens" / "mononphm"
needs_goldens = pytest.mark.skipif(
    not GOLDENS.is_dir(),
    reason="the large reference values of the official code are not in ../shared",
)


def open_golden_case(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, Any]:
    """One of the reference's models: the module of checks, the case, an empty tally."""
    monkeypatch.syspath_prepend(ROOT / "dev")
    golden_checks = importlib.import_module("golden_checks")
    tally = golden_checks.Tally()
    golden = golden_checks.Golden(GOLDEN)
    return golden_checks, golden_checks.open_mono(golden, tally), tally


TINY = NPHMConfig(
    num_anchors=6,
    num_symm_pairs=2,
    num_neighbors=4,
    lat_dim_glob=3,
    lat_dim_loc_geo=2,
    lat_dim_loc_app=2,
    lat_dim_exp=4,
    lat_dim_id=3,
    hidden_dim_geo=8,
    num_layers_geo=2,
    hidden_dim_app=7,
    num_layers_app=2,
    hidden_dim_exp=9,
    num_layers_exp=3,
    hidden_dim_pos=5,
    bottleneck_dim=2,
)
"""Fewer neighbours than blending looks at."""

CONFIGS = {
    "few anchors": TINY,
    "more neighbours than blending looks at": dataclasses.replace(
        TINY, num_anchors=13, num_symm_pairs=5, num_neighbors=10
    ),
    "without colour": dataclasses.replace(TINY, hidden_dim_app=0),
    "without hyper coordinates": dataclasses.replace(TINY, num_hyper=0),
}


def make_params(cfg: NPHMConfig, seed: int = 0) -> Params:
    """Random weights, larger than a training's first ones; anchors about 0.4 apart."""
    rng = np.random.default_rng(seed)
    anchors = rng.uniform(-0.5, 0.5, (cfg.num_anchors, 3)).astype(np.float32)
    shapes = jax.eval_shape(
        lambda key: init_params(key, cfg, anchors), jax.random.key(0)
    )

    def draw(shape: jax.ShapeDtypeStruct) -> jax.Array:
        fan_in = shape.shape[-2] if len(shape.shape) > 1 else 10
        scale = 1.0 / np.sqrt(fan_in)
        return jnp.asarray(rng.normal(0, scale, shape.shape), jnp.float32)

    params = jax.tree.map(draw, shapes)
    # Deformations stay small, and anchors near their mean.
    for layer in (params["deformation"]["layers"][-1], params["identity"]["pos"][-1]):
        layer["w"], layer["b"] = layer["w"] * 0.05, layer["b"] * 0.05
    params["anchors_mean"] = jnp.asarray(anchors)
    return params


def make_codes(cfg: NPHMConfig, num_heads: int, seed: int = 1) -> Codes:
    """Random codes of S heads."""
    rng = np.random.default_rng(seed)
    dims = (cfg.lat_dim_geo, cfg.lat_dim_app, cfg.lat_dim_exp)
    return Codes(
        *(jnp.asarray(rng.normal(0, 0.3, (num_heads, d)), jnp.float32) for d in dims)
    )


def make_points(num_heads: int, num_points: int, seed: int = 2) -> jax.Array:
    """[S, P, 3] in the anchors' box."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-0.6, 0.6, (num_heads, num_points, 3))
    return jnp.asarray(points, jnp.float32)
