"""A tile-based differentiable Gaussian rasterizer: JAX, with kernels on CPU and GPU."""

from collections.abc import Mapping
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.core import RenderOutput, safe_normalize
from npga_jax.rasterizer import (
    compositing,
    native,
    pallas,
    paths,
    projection,
    reference,
    tiles,
)
from npga_jax.rasterizer.capacity import MAX_ISECTS
from npga_jax.rasterizer.compositing import Blocking
from npga_jax.rasterizer.sh import eval_sh

__all__ = [
    "Blocking",
    "rasterization",
    "rasterization_pallas",
    "rasterization_pure",
    "rasterization_reference",
]

MAX_SIDE = 2**15
"""Pixels of an image's side, and any of the work sizes: more would overflow int32."""

_NUMBERS = (int, float, np.integer, np.floating)
_DEFAULT_BLOCKING = Blocking()
_PALLAS_BLOCKING = Blocking(tile_size=16)
"""For TPUs: chunks of 128 Gaussians would stay half empty in smaller tiles."""


def _composite_tiled(
    projected,
    colors,
    *,
    width,
    height,
    max_isects,
    blocking,
    rasterize_to_pixels=compositing.rasterize_to_pixels,
):
    lists = tiles.isect_tiles(
        projected.means2d,
        projected.radii,
        projected.depths,
        width=width,
        height=height,
        tile_size=blocking.tile_size,
        max_isects=max_isects,
    )
    image, transmittance = rasterize_to_pixels(
        projected.means2d,
        projected.conics,
        projected.opacities,
        colors,
        lists,
        width=width,
        height=height,
        blocking=blocking,
    )
    counts = tiles.IsectCounts(lists.num_isects, lists.num_dropped)
    return image, transmittance, counts


def _composite_fastest(projected, colors, *, max_isects, blocking, **size):
    path = paths.choose_path(*projected[:5], colors, tile_size=blocking.tile_size)
    composite = _composite_tiled
    if path == "native":
        composite = partial(native.composite_native, pure_fn=_composite_tiled)
    elif path == "kernels":
        kernels = partial(pallas.rasterize_to_pixels, drivers=pallas.PROVEN)
        composite = partial(_composite_tiled, rasterize_to_pixels=kernels)
    return composite(
        projected, colors, max_isects=max_isects, blocking=blocking, **size
    )


def _check_static(arguments, num_channels):
    """Raises a ValueError that names the argument which no program can be made for."""
    for name, value, most in arguments:
        if not isinstance(value, int | np.integer) or not 1 <= value <= most:
            raise ValueError(
                f"{name} is {value!r}; expected a whole number from 1 to {most} that "
                "is known when the program is compiled."
            )
    if num_channels == 0:
        raise ValueError(
            "colors have no channel, and neither features nor render_depth add one; "
            "expected one at least."
        )


def _check_arrays(**arrays):
    for name, array in arrays.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name} are {array.dtype}; expected floating point.")


def _check_range(near_plane, far_plane, eps2d):
    """These may be traced; what is known is checked."""
    for name, value in (("near_plane", near_plane), ("eps2d", eps2d)):
        if isinstance(value, _NUMBERS) and not value >= 0:
            raise ValueError(f"{name} is {value}; expected 0 or more.")
    known = isinstance(near_plane, _NUMBERS) and isinstance(far_plane, _NUMBERS)
    if known and not far_plane > near_plane:
        raise ValueError(
            f"far_plane is {far_plane}; expected more than near_plane, {near_plane}."
        )


def _one_at_least(*columns):
    """The same Gaussians, or, if there are none, one that cannot be seen."""
    if columns[0].shape[0]:
        return columns
    return tuple(
        jnp.concatenate([x, jnp.zeros((1, *x.shape[1:]), x.dtype)]) for x in columns
    )


def _rasterize(
    composite_fn,
    means,
    quats,
    scales,
    opacities,
    colors,
    viewmats,
    Ks,
    *,
    width,
    height,
    max_isects,
    features=None,
    backgrounds=None,
    render_depth=False,
    eps2d=0.3,
    near_plane=0.01,
    far_plane=1e10,
    antialiased=False,
    blocking=_DEFAULT_BLOCKING,
) -> RenderOutput:
    n, num_cameras = means.shape[0], viewmats.shape[0]
    chex.assert_shape(means, (n, 3))
    chex.assert_shape(quats, (n, 4))
    chex.assert_shape(scales, (n, 3))
    chex.assert_shape(opacities, (n,))
    chex.assert_shape(viewmats, (num_cameras, 4, 4))
    chex.assert_shape(Ks, (num_cameras, 3, 3))
    chex.assert_axis_dimension(colors, 0, n)
    num_channels = 3 if colors.ndim == 3 else colors.shape[1]
    if features is None:
        num_features, features = 0, jnp.zeros((n, 0), colors.dtype)
    else:
        num_features = features.shape[1]
    chex.assert_shape(features, (n, num_features))
    _check_arrays(
        means=means,
        quats=quats,
        scales=scales,
        opacities=opacities,
        colors=colors,
        features=features,
    )
    sides = (("width", width, MAX_SIDE), ("height", height, MAX_SIDE))
    sizes = ((f"blocking.{k}", v, MAX_SIDE) for k, v in blocking._asdict().items())
    _check_static(
        (("max_isects", max_isects, MAX_ISECTS), *sides, *sizes),
        num_channels + num_features + render_depth,
    )
    _check_range(near_plane, far_plane, eps2d)
    if backgrounds is None:
        backgrounds = jnp.zeros((num_cameras, num_channels), colors.dtype)
    chex.assert_shape(backgrounds, (num_cameras, num_channels))
    means, quats, scales, opacities, colors, features = _one_at_least(
        means, quats, scales, opacities, colors, features
    )
    n = means.shape[0]
    # A Gaussian without a usable colour is culled and counted, like the others.
    shown = jnp.all(projection.is_usable(colors).reshape(n, -1), axis=-1)
    shown &= jnp.all(projection.is_usable(features), axis=-1)
    opacities = jnp.where(shown, opacities, jnp.inf)

    def one_camera(camera):
        viewmat, K, background = camera
        projected = projection.project_gaussians(
            means,
            quats,
            scales,
            opacities,
            viewmat,
            K,
            width=width,
            height=height,
            eps2d=eps2d,
            near_plane=near_plane,
            far_plane=far_plane,
            antialiased=antialiased,
        )
        visible = projected.radii[:, :1] > 0
        if colors.ndim == 3:
            center = -jnp.sum(viewmat[:3, :3] * viewmat[:3, 3:], axis=0)
            offsets = jnp.where(visible, means - center, 1.0)
            channels = eval_sh(colors, safe_normalize(offsets))
        else:
            channels = colors
        channels = jnp.concatenate([channels, features], axis=-1)
        # Culled rows may hold NaN: they take no part, not even as 0 * NaN.
        channels = jnp.where(visible, channels, 0.0)
        if render_depth:
            depth_channel = jnp.where(visible, projected.depths[:, None], 0.0)
            channels = jnp.concatenate([channels, depth_channel], axis=-1)
        image, transmittance, counts = composite_fn(
            projected,
            channels,
            width=width,
            height=height,
            max_isects=max_isects,
            blocking=blocking,
        )
        alpha = 1.0 - transmittance
        depth = None
        if render_depth:
            image, accumulated = image[..., :-1], image[..., -1]
            some = alpha > 1e-6
            depth = jnp.where(some, accumulated / jnp.where(some, alpha, 1.0), 0.0)
        image, composited = jnp.split(image, [num_channels], axis=-1)
        return RenderOutput(
            colors=image + transmittance[..., None] * background,
            features=composited if num_features else None,
            alphas=alpha,
            depths=depth,
            num_isects=counts.num_isects,
            num_dropped=counts.num_dropped,
            num_invalid=jnp.sum(projected.invalid, dtype=jnp.int32),
        )

    cameras = (viewmats, Ks, backgrounds)
    if num_cameras == 1:
        single = one_camera(jax.tree.map(lambda x: x[0], cameras))
        return jax.tree.map(lambda x: x[None], single)
    return jax.lax.map(one_camera, cameras)


def rasterization(
    means: jax.Array,  # [N, 3]
    quats: jax.Array,  # [N, 4] wxyz, any norm
    scales: jax.Array,  # [N, 3]
    opacities: jax.Array,  # [N]
    colors: jax.Array,  # [N, F] channels, or [N, K, 3] spherical harmonics
    viewmats: jax.Array,  # [C, 4, 4] world-to-camera, OpenCV axes
    Ks: jax.Array,  # [C, 3, 3] pixels
    *,
    width: int,
    height: int,
    max_isects: int,
    features: jax.Array | None = None,  # [N, D]
    backgrounds: jax.Array | None = None,  # [C, F]
    render_depth: bool = False,
    eps2d: float = 0.3,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    antialiased: bool = False,
    blocking: Blocking = _DEFAULT_BLOCKING,
) -> RenderOutput:
    """Renders N Gaussians into C cameras, one after the other; differentiable.

    Pixel centres are at +0.5. Culled, degenerate, huge and NaN Gaussians get finite
    (zero) gradients; NaN, infinite and absurdly large ones are counted.

    On the CPU, float32 is composited by native code where numba is there (`native`); on
    NVIDIA's GPUs of compute capability 8 or more, by Triton kernels (`pallas`); else by
    JAX's own operations (`compositing`), which is said once on stderr, with the reason
    (see `renderer_path`). Results agree to float32's rounding.

    Without any Gaussian (N = 0) the images are the backgrounds. Colours of spherical
    harmonics end at 0; one that is black is let go by gradients that would brighten it.

    Args:
      max_isects: static capacity for (Gaussian, tile) pairs per camera. What exceeds it
        is dropped from the back and counted in `num_dropped`.
      features: more channels, composited like colours but on black.
      backgrounds: added behind; black by default.
      render_depth: also return the alpha-weighted mean of the camera z.
      eps2d: low-pass added to the 2D covariances, pixels squared.
      antialiased: compensate opacities for `eps2d` (Mip-Splatting).
      blocking: static work sizes.

    Returns:
      RenderOutput; `depths` and `features` are None unless asked for.

    Raises:
      ValueError: a size is not a whole number of 1 or more, the planes are not in
        order, an array is not of floating point, or there is no channel.
      AssertionError: the shapes of the arrays do not fit together.
      jax.errors.JaxRuntimeError: memory runs out while it is run.
    """
    return _rasterize(
        _composite_fastest,
        means,
        quats,
        scales,
        opacities,
        colors,
        viewmats,
        Ks,
        width=width,
        height=height,
        max_isects=max_isects,
        features=features,
        backgrounds=backgrounds,
        render_depth=render_depth,
        eps2d=eps2d,
        near_plane=near_plane,
        far_plane=far_plane,
        antialiased=antialiased,
        blocking=blocking,
    )


def rasterization_pure(
    means, quats, scales, opacities, colors, viewmats, Ks, **options
) -> RenderOutput:
    """`rasterization` without native code and kernels, the same on every platform."""
    return _rasterize(
        _composite_tiled,
        means,
        quats,
        scales,
        opacities,
        colors,
        viewmats,
        Ks,
        **options,
    )


def rasterization_pallas(
    means,
    quats,
    scales,
    opacities,
    colors,
    viewmats,
    Ks,
    *,
    drivers: Mapping[str, pallas.Driver] | pallas.Driver = pallas.DRIVERS,
    interpret: bool = False,
    blocking: Blocking = _PALLAS_BLOCKING,
    **options,
) -> RenderOutput:
    """`rasterization` with the compositing in Pallas kernels, on TPUs and NVIDIA GPUs.

    On NVIDIA's GPUs that is what `rasterization` does, in tiles of 8x8. The kernels for
    TPUs equal `rasterization_pure` in JAX's interpreter and compile for TPUs, but have
    not run on one: `rasterization` does not use them.

    Args:
      drivers: by platform (`pallas.DRIVERS`), others get `rasterization_pure`'s way; or
        one for all platforms, `pallas.TPU` or `pallas.TRITON`.
      interpret: runs the one driver in JAX's interpreter.
      blocking: only `tile_size` has a meaning, a power of two.
    """
    rasterize_to_pixels = partial(
        pallas.rasterize_to_pixels, drivers=drivers, interpret=interpret
    )
    return _rasterize(
        partial(_composite_tiled, rasterize_to_pixels=rasterize_to_pixels),
        means,
        quats,
        scales,
        opacities,
        colors,
        viewmats,
        Ks,
        blocking=blocking,
        **options,
    )


def rasterization_reference(
    means, quats, scales, opacities, colors, viewmats, Ks, **options
) -> RenderOutput:
    """`rasterization` without tiles, O(N * H * W): the twin that tests compare with."""
    return _rasterize(
        reference.composite_dense,
        means,
        quats,
        scales,
        opacities,
        colors,
        viewmats,
        Ks,
        **options,
    )
