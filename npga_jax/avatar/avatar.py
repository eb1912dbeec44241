"""A trained avatar as a value: driven and rendered without its capture."""

import dataclasses
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np

from npga_jax.avatar.method import Method
from npga_jax.avatar.renderer import AvatarRenderer
from npga_jax.avatar.view_checks import check_side, matrices
from npga_jax.core import AvatarParams, Splats


class DefaultCamera(NamedTuple):
    """Where the avatar is looked at from, unless told otherwise: the front."""

    viewmat: np.ndarray  # [4, 4] head-to-camera, OpenCV axes, metres
    K: np.ndarray  # [3, 3] pixels of an image of `width` x `height`
    width: int
    height: int
    fps: float


@dataclasses.dataclass(frozen=True, eq=False)
class Avatar:
    """A drivable head; everything is in its own frame (`docs/architecture.md`)."""

    method: Method
    params: AvatarParams
    alive: jax.Array  # [N] bool
    driving_names: tuple[str, ...]
    """Of the E components of the code that drives it."""
    driving_model: str
    """What the codes are of: name and fingerprint of the head model."""
    neutral: np.ndarray
    """[E] the calmest code of the training frames."""
    code_mean: np.ndarray
    """[E] over the training frames; likewise `code_std`."""
    code_std: np.ndarray
    neutral_pose: np.ndarray
    """[4, 4] world_from_head of the frame that `neutral` is of."""
    camera: DefaultCamera
    provenance: dict[str, Any]
    """Settings, subject, steps, versions: where it comes from."""

    @cached_property
    def renderer(self) -> AvatarRenderer:
        """The renderer of any number of cameras, in world or head frame."""
        return AvatarRenderer(
            self.method,
            self.params,
            self.alive,
            self.camera.width,
            self.camera.height,
            num_expr=len(self.driving_names),
        )

    @property
    def world_viewmat(self) -> np.ndarray:
        """[4, 4] `camera` in the world of the capture, where `neutral_pose` is."""
        pose = self.neutral_pose.astype(np.float64)
        scale = np.linalg.norm(pose[:3, 0])
        matrix = np.diag([scale, scale, scale, 1.0]) @ self.camera.viewmat
        return (matrix @ np.linalg.inv(pose)).astype(np.float32)

    @property
    def num_gaussians(self) -> int:
        """How many slots are in use."""
        return int(np.sum(self.alive))

    def render(
        self,
        expr: np.ndarray | None = None,
        viewmat: np.ndarray | None = None,
        K: np.ndarray | None = None,
        width: int | None = None,
        height: int | None = None,
        *,
        background: float | np.ndarray = 1.0,
    ) -> np.ndarray:
        """One image of the avatar.

        Args:
          expr: [E] code; None for `neutral`.
          viewmat: [4, 4] head-to-camera, OpenCV axes, metres; None for `camera`'s.
          K: [3, 3] intrinsics in pixels; None for `camera`'s, scaled to the size.
          width: of the image; None for `camera`'s, or what goes with the height.
          height: likewise.
          background: [] or [3], in [0, 1].

        Returns:
          [H, W, 3] float32 in [0, 1].

        Raises:
          InputError: the code has another length than `driving_names`, or an argument
            another shape, is not finite, or out of bounds.
        """
        width, height = self._size(width, height)
        if K is None:
            K = self.camera.K.copy()
            K[0] *= width / self.camera.width
            K[1] *= height / self.camera.height
        viewmat = self.camera.viewmat if viewmat is None else viewmat
        return self.renderer(
            self.neutral if expr is None else expr,
            np.eye(4, dtype=np.float32),
            matrices("viewmat", viewmat, (4, 4))[None],
            matrices("K", K, (3, 3))[None],
            width,
            height,
            background,
        )[0]

    def _size(self, width: int | None, height: int | None) -> tuple[int, int]:
        for name, side in (("width", width), ("height", height)):
            if side is not None:
                check_side(name, side)
        aspect = self.camera.width / self.camera.height
        if width is not None:
            return width, height or max(1, round(width / aspect))
        if height is not None:
            return max(1, round(height * aspect)), height
        return self.camera.width, self.camera.height

    def splats(self, expr: np.ndarray | None = None) -> Splats:
        """The posed cloud in the head frame, NumPy arrays; dead slots have opacity 0.

        Its `colors` are coefficients of spherical harmonics [N, K, 3], degree 0 first:
        `npga_jax.rasterization` takes them as they are, and
        `npga_jax.rasterizer.sh.eval_sh(colors, directions)` makes RGB of them, which
        without view-dependent colour (K is 1) is `0.5 + 0.28209 * colors[:, 0]`,
        clipped at 0.

        Args:
          expr: [E] code; None for `neutral`.
        """
        return self.renderer.splats(self.neutral if expr is None else expr)
