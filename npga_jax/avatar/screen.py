"""The screen-space network: a small residual U-Net over what is rendered.

NPGA (section 3; its inputs and widths are not known, so these are this project's):
latent features are composited with the colours, and the network adds to the rendered
image what splats cannot show. The rendered image is supervised too, so that the avatar
remains one without the network.
"""

import math

import jax
import jax.numpy as jnp

from npga_jax.core import Params, RenderOutput

_DEPTH = 2
RESIDUAL_SCALE = 0.1
"""What an output of 1 adds to the image."""


def init_screen(key: jax.Array, *, num_features: int, width: int) -> Params:
    """Weights; the last layer is zero, so that training starts at the plain rendering.

    Args:
      num_features: of those composited with the colours.
      width: channels at full size; twice as many at each halving.
    """
    widths = [width * 2**level for level in range(_DEPTH + 1)]
    layers = {"first": (3, num_features + 4, widths[0]), "last": (3, widths[0], 3)}
    for level in range(1, _DEPTH + 1):
        layers[f"down{level}"] = (3, widths[level - 1], widths[level])
        layers[f"mix{level}"] = (3, widths[level], widths[level])
        layers[f"up{level}"] = (1, widths[level], widths[level - 1])
    keys = jax.random.split(key, len(layers))
    params = {}
    for k, (name, (size, fan_in, fan_out)) in zip(keys, layers.items(), strict=True):
        w = jax.random.normal(k, (size, size, fan_in, fan_out))
        w *= 0.0 if name == "last" else math.sqrt(2.0 / (size * size * fan_in))
        params[name] = {"w": w, "b": jnp.zeros(fan_out)}
    return params


def _conv(layer: Params, x: jax.Array, stride: int = 1) -> jax.Array:
    """Convolution of images [C, H, W, I] to [C, ceil(H / stride), ..., O]."""
    out = jax.lax.conv_general_dilated(
        x,
        layer["w"],
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return out + layer["b"]


def _doubled(x: jax.Array, height: int, width: int) -> jax.Array:
    """Every pixel four times, cut to a size."""
    return x.repeat(2, axis=1).repeat(2, axis=2)[:, :height, :width]


def refine_image(params: Params, out: RenderOutput) -> jax.Array:
    """The rendered images [C, H, W, 3] and what the network adds to them.

    Args:
      params: of `init_screen`.
      out: with `features`.

    Raises:
      ValueError: it has none.
    """
    if out.features is None:
        raise ValueError("the screen-space network reads features; none are rendered")
    x = jnp.concatenate([out.colors, out.features, out.alphas[..., None]], axis=-1)
    x = jax.nn.relu(_conv(params["first"], x))
    skips = []
    for level in range(1, _DEPTH + 1):
        skips.append(x)
        x = jax.nn.relu(_conv(params[f"down{level}"], x, stride=2))
        x = jax.nn.relu(_conv(params[f"mix{level}"], x))
    for level in range(_DEPTH, 0, -1):
        skip = skips[level - 1]
        x = _doubled(_conv(params[f"up{level}"], x), *skip.shape[1:3])
        x = jax.nn.relu(x + skip)
    return out.colors + RESIDUAL_SCALE * _conv(params["last"], x)
