"""Latent codes of a head: their layout, and the penalties on them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from npga_jax.core import Array, safe_norm
from npga_jax.nphm.config import NPHMConfig


class Codes(NamedTuple):
    """What describes one head with one expression. Leading axes may be added."""

    geo: Array  # [lat_dim_geo] identity: [global, local_0, ..., local_extra]
    app: Array  # [lat_dim_app] appearance, the same layout; empty without colour
    exp: Array  # [lat_dim_exp] expression


def zero_codes(cfg: NPHMConfig) -> Codes:
    """The codes that every fit starts from."""
    return Codes(
        geo=jnp.zeros(cfg.lat_dim_geo),
        app=jnp.zeros(cfg.lat_dim_app),
        exp=jnp.zeros(cfg.lat_dim_exp),
    )


def split_code(code: Array, cfg: NPHMConfig) -> tuple[jax.Array, jax.Array]:
    """A code of the local layout as its parts.

    Args:
      code: [..., glob + num_sources * loc].

    Returns:
      Global part [..., glob]; local parts [..., num_sources, loc], the extra one last.
    """
    glob, local = jnp.split(code, [cfg.lat_dim_glob], axis=-1)
    return glob, local.reshape(*code.shape[:-1], cfg.num_sources, -1)


def pair_distance(code: Array, cfg: NPHMConfig) -> jax.Array:
    """Mean distance of the local codes of mirror pairs (MonoNPHM, `get_symm_reg`).

    Args:
      code: [..., lat_dim_geo] or [..., lat_dim_app].

    Returns:
      [], zero for a face that is its own mirror image. Norms, not squares.
    """
    _, local = split_code(code, cfg)
    paired = local[..., : 2 * cfg.num_symm_pairs, :]
    return jnp.mean(safe_norm(paired[..., 0::2, :] - paired[..., 1::2, :]))


def middle_distance(code: Array, cfg: NPHMConfig) -> jax.Array:
    """Mean distance of consecutive local codes on the plane of symmetry: []."""
    _, local = split_code(code, cfg)
    middle = local[..., 2 * cfg.num_symm_pairs : cfg.num_anchors, :]
    # As in the official code, pairs do not overlap, and an odd last one is left out.
    middle = middle[..., : middle.shape[-2] // 2 * 2, :]
    return jnp.mean(safe_norm(middle[..., 0::2, :] - middle[..., 1::2, :]))
