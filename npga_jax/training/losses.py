"""What training minimises: loss terms, each a pure function of a view of the step."""

import zlib
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp

from npga_jax.avatar import LossTerm, StepView, dynamics, residual_energy
from npga_jax.core import Array, Splats
from npga_jax.metrics import LpipsFn, make_lpips, psnr, ssim_map
from npga_jax.training.laplacian import laplacian_energy

LARGE_SCALE = 8e-3
"""Metres; skin needs no larger Gaussians."""
LAPLACIAN_ROWS = 4096
"""Gaussians whose neighbourhoods a step looks at."""


def composite_target(
    rgb: Array,  # [B, H, W, 3] uint8
    alpha: Array,  # [B, H, W] uint8
    background: jax.Array | float,
) -> tuple[Array, Array]:
    """The person on the given background: image [B, H, W, 3] and matte, in [0, 1]."""
    matte = alpha.astype(jnp.float32) / 255.0
    image = rgb.astype(jnp.float32) / 255.0
    return image * matte[..., None] + (1.0 - matte[..., None]) * background, matte


def l1(view: StepView) -> jax.Array:
    """Mean |I - I*| of what is rasterized."""
    return jnp.mean(jnp.abs(view.out.colors - view.target))


def ssim(view: StepView) -> jax.Array:
    """1 - SSIM of what is rasterized."""
    return 1.0 - jnp.mean(ssim_map(view.out.colors, view.target))


def alpha(view: StepView) -> jax.Array:
    """Mean |A - A*|."""
    return jnp.mean(jnp.abs(view.out.alphas - view.matte))


def parts(view: StepView) -> jax.Array:
    """|I - I*| of eyes and mouth once more, as a mean over all pixels."""
    difference = jnp.abs(view.out.colors - view.target)
    return jnp.mean(view.parts[..., None] * difference)


def screen(view: StepView, *, l1_weight: float, ssim_weight: float) -> jax.Array:
    """l1 and ssim of the image that the screen-space network makes."""
    shown = view._replace(out=view.out._replace(colors=view.shown))
    return l1_weight * l1(shown) + ssim_weight * ssim(shown)


def residual(view: StepView) -> jax.Array:
    """Squared size of G's residuals, in their own output scales."""
    return residual_energy(view.residuals, view.alive)


def scale(view: StepView) -> jax.Array:
    """Mean excess of scales over `LARGE_SCALE`, in units of it."""
    return scale_excess(view.splats, view.alive)


def opacity(view: StepView) -> jax.Array:
    """Mean opacity of living Gaussians."""
    return jnp.sum(view.splats.opacities) / jnp.maximum(jnp.sum(view.alive), 1)


def _smoothness(view: StepView, values: jax.Array) -> jax.Array:
    rows = min(LAPLACIAN_ROWS, view.alive.shape[0])
    first = jax.random.randint(view.key, (), 0, view.alive.shape[0] - rows + 1)
    return laplacian_energy(values, view.graph, first, rows=rows)


def laplacian_features(view: StepView) -> jax.Array:
    """Differences of features between neighbours."""
    return _smoothness(view, view.params.gaussians.features)


def laplacian_dynamics(view: StepView) -> jax.Array:
    """Differences between neighbours of what F and G add, in their output scales."""
    moved = view.splats.means - view.params.gaussians.means
    return _smoothness(view, dynamics(moved, view.residuals))


def lpips(view: StepView, *, crop: int, lpips_fn: Callable[[], LpipsFn]) -> jax.Array:
    """Perceptual distance of a crop around the face, shifted at random.

    Args:
      lpips_fn: makes the distance.
    """
    views, height, width = view.target.shape[:3]
    size = min(crop, width, height)
    shift = jax.random.uniform(view.key, (views, 2), minval=-0.5, maxval=0.5)
    centres = project_origin(view.viewmats, view.Ks) + size * shift
    return jnp.mean(
        lpips_fn()(
            crop_around(view.shown, centres, size),
            crop_around(view.target, centres, size),
        )
    )


alex_lpips = partial(make_lpips, "alex")


def project_origin(viewmats: jax.Array, Ks: Array) -> jax.Array:
    """Where each camera sees the origin: pixels [C, 2]."""
    seen = jnp.einsum("cij,cj->ci", Ks, viewmats[:, :3, 3])
    return seen[:, :2] / jnp.maximum(seen[:, 2:], 1e-6)


def crop_around(
    images: Array,  # [B, H, W, 3]
    centres: jax.Array,  # [B, 2] pixels, x and y
    size: int,
) -> jax.Array:
    """Squares [B, size, size, 3] around the centres, moved inside the image."""
    height, width = images.shape[1:3]
    corner = jnp.round(centres - size / 2).astype(jnp.int32)
    left = jnp.clip(corner[:, 0], 0, width - size)
    top = jnp.clip(corner[:, 1], 0, height - size)

    def crop(image, x, y):
        return jax.lax.dynamic_slice(image, (y, x, 0), (size, size, 3))

    return jax.vmap(crop)(images, left, top)


def scale_excess(splats: Splats, alive: jax.Array) -> jax.Array:
    """How far scales of living Gaussians pass `LARGE_SCALE`, in units of it."""
    excess = jnp.sum(jax.nn.relu(splats.scales / LARGE_SCALE - 1.0), axis=-1)
    return jnp.sum(jnp.where(alive, excess, 0.0)) / jnp.maximum(jnp.sum(alive), 1)


def mean_psnr(colors: jax.Array, target: Array) -> jax.Array:
    """dB; a mean over views, so that it does not depend on how they share devices."""
    return jnp.mean(psnr(jnp.clip(colors, 0, 1), target))


def weighted_terms(
    terms: Sequence[LossTerm], view: StepView
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss, and the terms that it is the weighted sum of, by name.

    Each term has a key of its own, whatever other terms there are.
    """
    values = {
        term.name: term.fn(view._replace(key=_named_key(view.key, term.name)))
        for term in terms
    }
    loss = sum((term.weight * values[term.name] for term in terms), start=jnp.zeros(()))
    return loss, values


def _named_key(key: jax.Array, name: str) -> jax.Array:
    return jax.random.fold_in(key, zlib.crc32(name.encode()))
