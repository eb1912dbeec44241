"""An avatar as a function of codes and cameras: images and clouds."""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.avatar.model import (
    deform_gaussians,
    head_viewmats,
    render_views,
    splats_to_world,
)
from npga_jax.avatar.networks import Deformation
from npga_jax.avatar.screen import refine_image
from npga_jax.core import AvatarParams, InputError, Splats
from npga_jax.rasterizer import padded_capacity


class AvatarRenderer:
    """Renders an avatar; grows its intersection capacity when that is too small."""

    def __init__(
        self,
        deformation: Deformation,
        params: AvatarParams,
        alive: jax.Array,
        width: int,
        height: int,
        *,
        num_expr: int,
    ):
        """Binds an avatar.

        Args:
          deformation: its F and G, the ones that it was trained with.
          width: of images, unless a call says otherwise; likewise `height`.
          num_expr: length of the codes that it was trained on.
        """
        self.params, self.alive = params, alive
        self.width, self.height = width, height
        self.num_expr = num_expr
        self._deform = partial(deform_gaussians, **deformation._asdict())
        self._capacity = padded_capacity(0)
        self._compiled = lru_cache(maxsize=8)(self._compile)

    def _compile(self, width: int, height: int, capacity: int):
        @jax.jit
        def render(params, alive, expr, world_from_head, viewmats, Ks):
            splats, _ = self._deform(params, alive, expr)
            has_screen = bool(params.screen)
            out = render_views(
                splats,
                head_viewmats(viewmats, world_from_head),
                Ks,
                width=width,
                height=height,
                max_isects=capacity,
                features=params.gaussians.features if has_screen else None,
            )
            images = refine_image(params.screen, out) if has_screen else out.colors
            return images, jnp.max(out.num_isects)

        return render

    def _check_expr(self, expr: np.ndarray) -> None:
        if expr.shape != (self.num_expr,):
            raise InputError(
                f"the expression code has shape {expr.shape}; this avatar was trained "
                f"on codes of length {self.num_expr}. Drive it with codes of the same "
                "model."
            )

    def __call__(
        self,
        expr: np.ndarray,  # [E]
        world_from_head: np.ndarray,  # [4, 4]
        viewmats: np.ndarray,  # [C, 4, 4]
        Ks: np.ndarray,  # [C, 3, 3]
        width: int | None = None,
        height: int | None = None,
    ) -> np.ndarray:
        """Images [C, H, W, 3] float32 in [0, 1], on white."""
        self._check_expr(expr)
        size = (width or self.width, height or self.height)
        while True:
            colors, wanted = self._compiled(*size, self._capacity)(
                self.params, self.alive, expr, world_from_head, viewmats, Ks
            )
            if int(wanted) <= self._capacity:
                return np.clip(np.asarray(colors), 0.0, 1.0)
            self._capacity = padded_capacity(int(wanted))

    def splats(self, expr: np.ndarray, world_from_head: np.ndarray) -> Splats:
        """The posed cloud in the world frame, NumPy arrays."""
        self._check_expr(expr)
        splats, _ = jax.jit(self._deform)(self.params, self.alive, expr)
        splats = splats_to_world(splats, jnp.asarray(world_from_head))
        return jax.tree.map(np.asarray, splats)
