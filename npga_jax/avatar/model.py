"""The avatar: canonical Gaussians, posed by F and G, seen by cameras.

Everything is rendered in the head frame: a camera is brought there by the head pose, so
that the cloud, its spherical harmonics and its covariances need no rotation.
"""

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.avatar.detail import Residuals
from npga_jax.avatar.method import Method
from npga_jax.core import (
    Array,
    AvatarParams,
    Gaussians,
    RenderOutput,
    Splats,
    clip_with_way_back,
    exact_products,
    logit,
    quat_multiply,
    rotmat_to_quat,
    safe_normalize,
)
from npga_jax.rasterizer import sh as sh_bases

MIN_SCALE, MAX_SCALE = 1e-4, 3e-2
"""Metres: activated scales stay between, so that no Gaussian vanishes or explodes."""

HYPER_SCALE = 10.0
"""Hyper coordinates times this become features; they are a few hundredths of a unit."""


def init_gaussians(
    means: jax.Array,  # [P, 3] head frame, metres
    rgb: jax.Array,  # [P, 3] in [0, 1]
    spacing: jax.Array,  # [P] metres to the next points
    *,
    hyper: jax.Array | None = None,  # [P, D] hyper coordinates; D may be zero
    bindings: jax.Array | None = None,  # [P, 2] see `Gaussians`; None: all skin
    capacity: int,
    num_features: int,
    sh_degree: int,
    key: jax.Array,
) -> tuple[Gaussians, jax.Array]:
    """Round Gaussians on points, padded to `capacity` with dead slots.

    Features start as small noise, but for the first ones: where the head model has
    hyper coordinates, they tell apart what lies at one place (lips that touch).

    Returns:
      Gaussians, and alive [capacity] bool.

    Raises:
      ValueError: if there are more points than slots.
    """
    count = means.shape[0]
    if count > capacity:
        raise ValueError(f"{count} points do not fit into {capacity} slots")
    padding = capacity - count

    def pad(x: jax.Array, value: float | jax.Array = 0.0) -> jax.Array:
        widths = [(0, padding)] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, widths, constant_values=value)

    scales = jnp.clip(spacing, MIN_SCALE * 1.01, MAX_SCALE * 0.99)
    coefficients = jnp.zeros((count, sh_bases.num_sh_bases(sh_degree), 3))
    coefficients = coefficients.at[:, 0].set(sh_bases.rgb_to_sh(rgb))
    quats = jnp.zeros((count, 4)).at[:, 0].set(1.0)
    features = 0.01 * jax.random.normal(key, (count, num_features))
    if hyper is not None:
        hyper = HYPER_SCALE * hyper[:, :num_features]
        features = features.at[:, : hyper.shape[1]].set(hyper)
    gaussians = Gaussians(
        means=pad(means),
        quats=pad(quats),
        log_scales=pad(jnp.log(scales)[:, None].repeat(3, axis=1), jnp.log(1e-3)),
        logit_opacities=pad(logit(jnp.full(count, 0.3)), -10.0),
        sh=pad(coefficients),
        features=pad(features),
        bindings=pad(jnp.zeros((count, 2)) if bindings is None else bindings),
    )
    return gaussians, jnp.arange(capacity) < count


def bounded_scales(log_scales: jax.Array) -> jax.Array:
    """Activated scales, between `MIN_SCALE` and `MAX_SCALE`.

    A Gaussian at a bound still feels a gradient that leads away from it.
    """
    low, high = np.log(MIN_SCALE), np.log(MAX_SCALE)
    return jnp.exp(clip_with_way_back(log_scales, low, high))


@exact_products
def deform_gaussians(
    method: Method,
    params: AvatarParams,
    alive: jax.Array,  # [N] bool
    expr: Array,  # [E]
    *,
    detail_expr: Array | None = None,
) -> tuple[Splats, Residuals]:
    """The cloud at an expression, in the head frame, activated; and what G added.

    Args:
      detail_expr: [E] what G reads instead of `expr`.
    """
    gaussians = params.gaussians
    means, features = gaussians.means, gaussians.features
    moved = method.forward.apply(
        params.forward, means, features, gaussians.bindings, expr
    )
    residuals = method.detail.apply(
        params.detail, means, features, expr if detail_expr is None else detail_expr
    )
    turn = residuals.quats + jnp.array([1.0, 0.0, 0.0, 0.0])
    opacities = jax.nn.sigmoid(gaussians.logit_opacities + residuals.logit_opacities)
    sh = gaussians.sh.at[:, 0].add(residuals.rgb / sh_bases.C0)
    splats = Splats(
        means=moved + residuals.means,
        quats=quat_multiply(turn, gaussians.quats),
        scales=bounded_scales(gaussians.log_scales + residuals.log_scales),
        opacities=jnp.where(alive, opacities, 0.0),
        colors=sh,
    )
    return splats, residuals


def head_viewmats(viewmats: Array, world_from_head: Array) -> jax.Array:
    """Cameras in the head frame.

    The uniform scale s of the head pose is divided out of the camera, which leaves the
    image as it is and the matrix rigid; depths are then in head units.

    Args:
      viewmats: [C, 4, 4] world-to-camera.
      world_from_head: [4, 4] rotation times s, and translation.

    Returns:
      [C, 4, 4] head-to-camera.
    """
    combined = jnp.einsum(
        "cij,jk->cik", viewmats, world_from_head, precision=jax.lax.Precision.HIGHEST
    )
    scale = jnp.linalg.norm(world_from_head[:3, 0])
    return combined.at[:, :3].divide(scale)


@exact_products
def render_views(
    method: Method,
    params: AvatarParams,
    splats: Splats,
    viewmats: Array,  # [C, 4, 4] head-to-camera
    Ks: Array,  # [C, 3, 3]
    *,
    width: int,
    height: int,
    max_isects: int,
    background: jax.Array | float = 1.0,
    with_screen: bool = True,
) -> tuple[jax.Array, RenderOutput]:
    """Renders one posed cloud into C cameras, on white unless told otherwise.

    Args:
      with_screen: False leaves the screen-space network out, if the method has one.

    Returns:
      Images [C, H, W, 3] as they are to be shown, and what the rasterizer made.
    """
    screen = method.screen if with_screen else None
    backgrounds = jnp.broadcast_to(background, (viewmats.shape[0], 3))
    out = method.rasterize_fn(
        *splats,
        viewmats,
        Ks,
        width=width,
        height=height,
        max_isects=max_isects,
        features=None if screen is None else params.gaussians.features,
        backgrounds=backgrounds.astype(jnp.float32),
    )
    if screen is None:
        return out.colors, out
    return screen.apply(params.screen, out), out


def splats_to_world(splats: Splats, world_from_head: jax.Array) -> Splats:
    """Moves a posed cloud into the world.

    Spherical harmonics beyond degree 0 stay in the head frame; they are not rotated.
    """
    scale = jnp.linalg.norm(world_from_head[:3, 0])
    rotation = world_from_head[:3, :3] / scale
    return splats._replace(
        means=jnp.matmul(
            splats.means,
            world_from_head[:3, :3].T,
            precision=jax.lax.Precision.HIGHEST,
        )
        + world_from_head[:3, 3],
        quats=quat_multiply(rotmat_to_quat(rotation), safe_normalize(splats.quats)),
        scales=splats.scales * scale,
    )
