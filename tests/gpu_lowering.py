"""Lowering for platforms that are not there."""

from collections.abc import Callable

import jax
from jax.sharding import AbstractDevice, AbstractMesh


def lowered_text(jitted: Callable, *args, platform: str) -> str:
    """What a function lowers to; for a GPU, one that JAX knows."""
    device = AbstractDevice(
        device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu"
    )
    mesh = AbstractMesh((), (), abstract_device=device if platform == "cuda" else None)
    with jax.sharding.use_abstract_mesh(mesh):
        traced = jitted.trace(*args)
        return traced.lower(lowering_platforms=(platform,)).as_text()
