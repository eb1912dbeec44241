"""A golden of MonoNPHM opened: sizes, weights by the recipe, codes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from golden_report import Golden, Tally, check_weights, recipe_weights

from npga_jax.core import Params
from npga_jax.nphm import Codes, NPHMConfig, config_from_official, official


def recipe_states(cfg: NPHMConfig, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Official state dicts with weights by the recipe."""
    shapes = {
        f"{part[:2]}.{key}": shape
        for part, of_part in official.official_shapes(cfg).items()
        for key, shape in of_part.items()
    }
    last_layer = f"ex.defDeepSDF.lin{cfg.num_layers_exp}"
    return split_states(recipe_weights(shapes, seed, last_layer))


def split_states(weights: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Weights by full names as the two official state dicts."""
    return {
        f"{part}_decoder": {
            key[3:]: value for key, value in weights.items() if key[:2] == part
        }
        for part in ("id", "ex")
    }


def join_states(states: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The inverse of `split_states`."""
    return {
        f"{part[:2]}.{key}": value
        for part, state in states.items()
        for key, value in state.items()
    }


class Case(NamedTuple):
    """A golden of MonoNPHM, and our model with its weights."""

    golden: Golden
    cfg: NPHMConfig
    params: Params
    codes: Codes
    """Of its one head."""


def open_mono(golden: Golden, tally: Tally) -> Case:
    """A mono_*.npz, its weights by the recipe compared with what it says of them."""
    cfg = config_from_official(golden.config())
    states = recipe_states(cfg, int(golden["seed"]))
    check_weights(golden, join_states(states), tally)
    params = official.params_from_official(states, golden["anchors_mean"], cfg)
    params = jax.tree.map(jnp.asarray, params)
    return Case(golden, cfg, params, read_codes(golden, "lat"))


def read_codes(golden: Golden, prefix: str) -> Codes:
    """Codes of the heads of a golden; the official code has an axis more."""
    names = ("geo", "app", "exp")
    return Codes(*(jnp.asarray(golden[f"{prefix}_{name}"][:, 0]) for name in names))
