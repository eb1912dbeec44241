"""Which code composites: native code, kernels, or JAX's own operations; and why."""

import functools
import importlib.metadata
import os
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.rasterizer import native, pallas


class RendererPath(NamedTuple):
    """What composites the images of this process, to be kept with its results."""

    path: str  # "native" (CPU), "kernels" (NVIDIA's GPUs) or "pure" (slow)
    reason: str  # Why none of the fast ones does; empty where one does
    numba: str | None  # Its version, where it is installed


def renderer_path(
    dtype: np.dtype | type = np.float32, tile_size: int = 8
) -> RendererPath:
    """What `rasterization` composites with on this process's devices.

    Args:
      dtype: of the Gaussians.
      tile_size: of the `Blocking`, in pixels.

    Returns:
      RendererPath; `reason` is a sentence without a full stop that says what to do.
    """
    path, reason = _choose(np.dtype(dtype), tile_size)
    try:
        numba = importlib.metadata.version("numba")
    except importlib.metadata.PackageNotFoundError:
        numba = None
    return RendererPath(path, reason, numba)


def _choose(dtype: np.dtype, tile_size: int) -> tuple[str, str]:
    if os.environ.get("NPGA_NATIVE", "1") == "0":
        return "pure", "the environment variable NPGA_NATIVE is 0; unset it"
    if dtype != np.float32:
        return "pure", f"the input is {dtype}, and the fast paths take float32 only"
    backend = jax.default_backend()
    if backend == "cpu":
        reason = native.why_not(tile_size)
        return ("pure", reason) if reason else ("native", "")
    if backend in ("gpu", "cuda"):
        reason = pallas.why_not(tile_size)
        return ("pure", reason) if reason else ("kernels", "")
    return "pure", f"there are no kernels that are proven on the platform {backend}"


def choose_path(*arrays: jax.Array, tile_size: int) -> str:
    """The path that serves these arrays; a slow one is announced, once.

    Returns:
      "native", "kernels" or "pure".
    """
    dtype = next((x.dtype for x in arrays if x.dtype != jnp.float32), jnp.float32)
    path, reason = _choose(np.dtype(dtype), tile_size)
    if reason:
        _announce(reason)
    return path


@functools.cache
def _announce(reason: str) -> None:
    print(f"rasterization takes its slow path: {reason}.", file=sys.stderr)
