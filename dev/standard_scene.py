"""The rasterizer on a given scene, in the interface of the standard benchmark.

The benchmark imports this file and calls `Impl(scene, variant)`; the loss is
mean((image - target)^2). `variant` may give the work sizes: "tile,chunk,group".
"""

import os
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_prefer_vector_width=512")

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.rasterizer import Blocking, rasterization

LEAVES = ("means", "quats", "scales", "opacities", "colors")


class Impl:
    """One scene, ready to be rendered again and again."""

    def __init__(self, scene: dict, variant: str = ""):
        sizes = [int(v) for v in variant.split(",")] if variant else []
        width, height = int(scene["width"]), int(scene["height"])
        self.params = {k: jnp.asarray(scene[k]) for k in LEAVES}
        target = jnp.asarray(scene["target"])
        options: dict[str, Any] = dict(
            viewmats=jnp.asarray(scene["viewmat"])[None],
            Ks=jnp.asarray(scene["K"])[None],
            backgrounds=jnp.asarray(scene["background"])[None],
            width=width,
            height=height,
            blocking=Blocking(*sizes),
        )
        self.versions = {"jax": jax.__version__}

        def render(params, max_isects):
            out = rasterization(**params, **options, max_isects=max_isects)
            return out.colors[0], out

        def loss(params, max_isects):
            image, _ = render(params, max_isects)
            return jnp.mean((image - target) ** 2), image

        count = jax.jit(lambda p: render(p, 1)[1].num_isects[0])
        wanted = int(count(self.params))
        capacity = int(np.ceil(wanted * 1.05 / 4096)) * 4096
        self._fwd = jax.jit(lambda p: render(p, capacity)[0])
        self._fwdbwd = jax.jit(
            jax.value_and_grad(lambda p: loss(p, capacity), has_aux=True)
        )

    def fwd(self):
        """Image [H, W, 3], blocking."""
        return self._fwd(self.params).block_until_ready()

    def fwdbwd(self):
        """Image and the gradients of the loss, blocking."""
        (_, image), grads = jax.block_until_ready(self._fwdbwd(self.params))
        return image, grads

    to_np = staticmethod(np.asarray)
