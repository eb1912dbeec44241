"""An avatar as a function of codes and cameras: images and clouds."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from npga_jax.avatar.method import Method
from npga_jax.avatar.model import (
    deform_gaussians,
    head_viewmats,
    render_views,
    splats_to_world,
)
from npga_jax.avatar.view_checks import background_color, check_side, matrices
from npga_jax.core import AvatarParams, InputError, Splats
from npga_jax.rasterizer import padded_capacity


class AvatarRenderer:
    """Renders an avatar; grows its intersection capacity when that is too small."""

    def __init__(
        self,
        method: Method,
        params: AvatarParams,
        alive: jax.Array,
        width: int,
        height: int,
        *,
        num_expr: int,
    ):
        """Binds an avatar.

        Args:
          method: the one that it was trained with.
          width: of images, unless a call says otherwise; likewise `height`.
          num_expr: length of the codes that it was trained on.
        """
        self.method, self.params, self.alive = method, params, alive
        self.width, self.height = width, height
        self.num_expr = num_expr
        self._capacity = padded_capacity(0)
        self._compiled = cache(self._compile)
        self._pose = jax.jit(
            lambda params, alive, expr: deform_gaussians(method, params, alive, expr)[0]
        )

    def _compile(self, width: int, height: int, capacity: int):
        # Posing is a program apart: with the rasterizer in one, XLA's code for CPUs
        # took 2.5 times as long as the two (60,000 Gaussians, 275x401, jax 0.10.2).
        @jax.jit
        def render(params, splats, world_from_head, viewmats, Ks, background):
            images, out = render_views(
                self.method,
                params,
                splats,
                head_viewmats(viewmats, world_from_head),
                Ks,
                width=width,
                height=height,
                max_isects=capacity,
                background=background,
            )
            return images, jnp.max(out.num_isects)

        return render

    def _check_expr(self, expr: ArrayLike) -> np.ndarray:
        expr = np.asarray(expr, np.float32)
        if expr.shape != (self.num_expr,):
            raise InputError(
                f"the expression code has shape {expr.shape}; this avatar was trained "
                f"on codes of length {self.num_expr}. Drive it with codes of the same "
                "model."
            )
        if not np.isfinite(expr).all():
            raise InputError("the expression code is not finite; give numbers.")
        return expr

    def __call__(
        self,
        expr: ArrayLike,  # [E]
        world_from_head: ArrayLike,  # [4, 4]
        viewmats: ArrayLike,  # [C, 4, 4]
        Ks: ArrayLike,  # [C, 3, 3]
        width: int | None = None,
        height: int | None = None,
        background: ArrayLike = 1.0,  # [] or [3]
    ) -> np.ndarray:
        """Images [C, H, W, 3] float32 in [0, 1], on white unless told otherwise.

        Raises:
          InputError: an argument has another shape, is not finite, or out of bounds.
        """
        code = self._check_expr(expr)
        width = self.width if width is None else width
        height = self.height if height is None else height
        check_side("width", width)
        check_side("height", height)
        pose = matrices("world_from_head", world_from_head, (4, 4))
        cameras = matrices("viewmats", viewmats, (None, 4, 4))
        intrinsics = matrices("Ks", Ks, (len(cameras), 3, 3))
        behind = background_color(background)
        splats = self._pose(self.params, self.alive, code)
        while True:
            colors, wanted = self._compiled(width, height, self._capacity)(
                self.params,
                splats,
                pose,
                cameras,
                intrinsics,
                behind,
            )
            if int(wanted) <= self._capacity:
                return np.clip(np.asarray(colors), 0.0, 1.0)
            self._capacity = padded_capacity(int(wanted))

    def splats(
        self, expr: np.ndarray, world_from_head: np.ndarray | None = None
    ) -> Splats:
        """The posed cloud, NumPy arrays.

        Args:
          expr: [E].
          world_from_head: [4, 4]; None leaves the cloud in the head frame.
        """
        splats = self._pose(self.params, self.alive, self._check_expr(expr))
        if world_from_head is not None:
            pose = matrices("world_from_head", world_from_head, (4, 4))
            splats = splats_to_world(splats, jnp.asarray(pose))
        return jax.tree.map(np.asarray, splats)
