"""Distilled weights kept between runs: the same person, codes and settings."""

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from npga_jax.core import InputError, Params, atomic_write, cache_root, load_npz
from npga_jax.distillation.distill import (
    METHOD_VERSION,
    DistillOptions,
    distill,
    initial_forward,
)
from npga_jax.distillation.person import Person
from npga_jax.tracking import fingerprint


def forward_path(
    person: Person,
    codes: np.ndarray,
    num_features: int,
    options: DistillOptions,
    cache_dir: Path | None,
) -> Path:
    """Where F is kept; the name changes with anything that it depends on."""
    digest = hashlib.sha256(fingerprint(person.model).encode())
    for array in (person.geo, person.exp_std, codes):
        digest.update(np.ascontiguousarray(array, np.float32).tobytes())
    digest.update(repr((METHOD_VERSION, num_features, tuple(options))).encode())
    return cache_root(cache_dir) / "forward" / f"{digest.hexdigest()[:16]}.npz"


def distilled_forward(
    person: Person,
    codes: np.ndarray,
    *,
    num_features: int,
    options: DistillOptions,
    cache_dir: Path | None,
) -> Params:
    """Distils F, or takes what an earlier run left in the cache.

    Args:
      codes: [T, E] tracked codes of the training frames.

    Raises:
      InputError: distillation diverges, or the cache cannot be written.
    """
    path = forward_path(person, codes, num_features, options, cache_dir)
    if path.is_file():
        template = jax.eval_shape(
            lambda: initial_forward(
                codes[0], person.exp_std, num_features=num_features, options=options
            )
        )
        kept = read_forward(path, template)
        if kept is not None:
            return kept
    params, _ = distill(person, codes, num_features=num_features, options=options)
    write_forward(path, params)
    return params


def write_forward(path: Path, params: Params) -> None:
    """Writes weights, whole or not at all.

    Raises:
      InputError: the cache cannot be written.
    """
    flat: dict[str, Any] = {
        jax.tree_util.keystr(key): np.asarray(leaf)
        for key, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    instead = "choose another cache with --capture.cache-dir"
    with atomic_write(path, instead=instead) as file:
        np.savez(file, **flat)


def read_forward(path: Path, template: Params) -> Params | None:
    """Reads `write_forward`'s file; None if it is damaged, to be made anew.

    Args:
      template: shapes that the weights must have.
    """

    def take(key, shaped):
        leaf = arrays[jax.tree_util.keystr(key)]
        if leaf.shape != shaped.shape or not np.isfinite(leaf).all():
            raise ValueError(f"{key} is not what was written")
        return jax.numpy.asarray(leaf, shaped.dtype)

    try:
        arrays = load_npz(path, "weights of F")
        return jax.tree_util.tree_map_with_path(take, template)
    except (InputError, OSError, ValueError, KeyError, TypeError):
        return None
