"""G, the detail network: what an expression adds to every attribute of a Gaussian.

NPGA, section 3; widths and scales are defaults of this project.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.core import (
    Params,
    apply_mlp,
    init_mlp,
    map_rows,
    positional_encoding,
)

HEAD_RADIUS = 0.1
"""Metres; positions are divided by it before they are encoded."""


class Residuals(NamedTuple):
    """What the detail network adds to the raw parameters."""

    means: jax.Array  # [N, 3] metres
    quats: jax.Array  # [N, 4] added to the unit quaternion (1, 0, 0, 0)
    log_scales: jax.Array  # [N, 3]
    logit_opacities: jax.Array  # [N]
    rgb: jax.Array  # [N, 3] added to the colour


OUTPUT_SCALES: Any = Residuals(*cast(Any, (0.05, 0.2, 0.2, 1.0, 0.2)))
"""What an output of 1 stands for."""

NUM_OUTPUTS = 14

BLOCK_ROWS = 2_000
"""Gaussians that pass G together on a CPU (`map_rows`)."""


def init_detail(
    key: jax.Array,
    *,
    num_features: int,
    num_expr: int,
    hidden: int,
    layers: int,
    octaves: int,
    code_std: jax.Array | float = 1.0,
    code_filter: jax.Array | None = None,
) -> Params:
    """Weights of G. Its basis is zero, so that training starts without it.

    Args:
      code_std: [E] or [] codes are divided by; not trained.
      code_filter: [E, E] what G hears of codes in that unit (`wiener_filter`); all by
        default; not trained.
    """
    if code_filter is None:
        code_filter = jnp.eye(num_expr)
    num_inputs = 3 * (1 + 2 * octaves) + num_features
    return {
        **init_mlp(key, [num_inputs] + [hidden] * layers),
        "basis_w": jnp.zeros((num_expr, hidden, NUM_OUTPUTS)),
        "basis_b": jnp.zeros((num_expr, NUM_OUTPUTS)),
        "code_std": jnp.broadcast_to(jnp.asarray(code_std, jnp.float32), (num_expr,)),
        "code_filter": jnp.asarray(code_filter, jnp.float32),
    }


def wiener_filter(codes: np.ndarray, noise: float) -> np.ndarray:
    """How much of each direction of a code is worth hearing: [E, E].

    A hundred tracked frames do not vary in all directions of a code. Adam's steps are
    as long along those that hardly do, so that G would learn noise there, which a
    sequence that leaves what the frames span then multiplies. A direction whose root
    mean square is s keeps s^2 / (s^2 + noise^2) of itself.

    Args:
      codes: [T, E] of the training frames, in the unit that G reads them in.
      noise: of tracked codes, in the same unit; 0 keeps everything.
    """
    moments = codes.T.astype(np.float64) @ codes / len(codes)
    energies, directions = np.linalg.eigh(moments)
    energies = np.maximum(energies, 0.0)
    # Directions that nothing varies along are kept where there is no noise.
    kept = energies / (energies + noise**2) if noise else np.ones_like(energies)
    return ((directions * kept) @ directions.T).astype(np.float32)


def detail_residuals(
    params: Params,
    means: jax.Array,  # [N, 3] canonical
    features: jax.Array,  # [N, F]
    expr: jax.Array,  # [E]
    *,
    octaves: int,
) -> Residuals:
    """G: fields of blendshapes, smooth in space and linear in the expression code.

    With h = MLP(encoding(x), f), the residual is sum_e z_e (W_e h + b_e): a code of
    zero leaves the canonical cloud as it is. With a hundred frames to learn from, this
    reaches unseen mixtures of expressions better than an MLP that reads the code beside
    the position (docs/notes/results.md). Positions are read without a gradient, as in
    Deformable 3D Gaussians.
    """
    expr = expr / jax.lax.stop_gradient(params["code_std"])
    expr = jax.lax.stop_gradient(params["code_filter"]) @ expr

    def rows_of_g(means, features):
        x = positional_encoding(means / HEAD_RADIUS, octaves)
        hidden = apply_mlp(params, jnp.concatenate([x, features], axis=-1))
        basis = jnp.tensordot(expr, params["basis_w"], 1)
        return hidden @ basis + expr @ params["basis_b"]

    places = jax.lax.stop_gradient(means)
    out = map_rows(rows_of_g, (places, features), rows=BLOCK_ROWS)
    means_out, quats_out, scales_out, opacity_out, rgb_out = jnp.split(
        out, [3, 7, 10, 11], axis=-1
    )
    return Residuals(
        means=OUTPUT_SCALES.means * means_out,
        quats=OUTPUT_SCALES.quats * quats_out,
        log_scales=OUTPUT_SCALES.log_scales * scales_out,
        logit_opacities=OUTPUT_SCALES.logit_opacities * opacity_out[:, 0],
        rgb=OUTPUT_SCALES.rgb * rgb_out,
    )


def blind_to_features(
    params: Params,
    means: jax.Array,
    features: jax.Array,
    expr: jax.Array,
    *,
    detail_fn: Callable[..., Residuals],
) -> Residuals:
    """A G that knows Gaussians by their places alone."""
    return detail_fn(params, means, jnp.zeros_like(features), expr)


def within_reach(
    params: Params,
    means: jax.Array,
    features: jax.Array,
    expr: jax.Array,
    *,
    detail_fn: Callable[..., Residuals],
    reach: float,
) -> Residuals:
    """A G that moves and turns Gaussians by a share of what it says.

    Beside F, which knows where expressions take the skin, there is little left to move;
    what it says of sizes, opacities and colours is taken in full.
    """
    full = detail_fn(params, means, features, expr)
    return full._replace(means=reach * full.means, quats=reach * full.quats)


def no_detail(
    params: Params, means: jax.Array, features: jax.Array, expr: jax.Array
) -> Residuals:
    """G that adds nothing: a rigid avatar."""
    del params, features, expr
    n = means.shape[0]
    return Residuals(
        means=jnp.zeros((n, 3)),
        quats=jnp.zeros((n, 4)),
        log_scales=jnp.zeros((n, 3)),
        logit_opacities=jnp.zeros(n),
        rgb=jnp.zeros((n, 3)),
    )


MOTION_SCALE = 0.01
"""Metres of displacement that count as one."""


def dynamics(moved: jax.Array, residuals: Residuals) -> jax.Array:
    """All that an expression does to each Gaussian, in comparable units: [N, 14].

    Args:
      moved: [N, 3] displacement by F and G together, metres.
    """
    others = residuals._replace(means=moved)
    scales = OUTPUT_SCALES._replace(means=MOTION_SCALE)
    parts = jax.tree.map(
        lambda x, scale: x.reshape(x.shape[0], -1) / scale, others, scales
    )
    return jnp.concatenate(parts, axis=-1)


def residual_energy(residuals: Residuals, alive: jax.Array) -> jax.Array:
    """Mean square of the residuals of living Gaussians, in units of OUTPUT_SCALES."""
    count = jnp.maximum(jnp.sum(alive), 1)

    def energy(residual, scale):
        residual = residual.reshape(residual.shape[0], -1) / scale
        return jnp.sum(jnp.where(alive[:, None], residual**2, 0.0)) / count

    energies = jax.tree.leaves(jax.tree.map(energy, residuals, OUTPUT_SCALES))
    return sum(energies, start=jnp.zeros(()))
