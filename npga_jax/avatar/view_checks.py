"""What a view of an avatar may be asked with: sentences for all that it may not."""

import numpy as np
from jax.typing import ArrayLike

from npga_jax.core import InputError
from npga_jax.rasterizer import MAX_SIDE


def matrices(name: str, value: ArrayLike, shape: tuple[int | None, ...]) -> np.ndarray:
    """Finite numbers of a shape, float32.

    Args:
      name: of the argument, for messages.
      shape: None is any size.

    Raises:
      InputError: it is something else.
    """
    wanted = f"[{', '.join('C' if n is None else str(n) for n in shape)}]"
    try:
        array = np.asarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: expected numbers {wanted} ({error}).") from error
    fits = len(array.shape) == len(shape) and all(
        n in (None, found) for n, found in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise InputError(f"{name} has shape {list(array.shape)}; expected {wanted}.")
    if not np.isfinite(array).all():
        raise InputError(f"{name} is not finite; give numbers.")
    return array


def background_color(value: ArrayLike) -> np.ndarray:
    """A grey or a colour, float32.

    Raises:
      InputError: it is neither.
    """
    color = matrices("background", value, (3,) if np.ndim(value) else ())
    if color.min() < 0 or color.max() > 1:
        raise InputError(f"background is {value}; expected values in [0, 1].")
    return color


def check_side(name: str, value: int) -> None:
    """Raises InputError unless an image may have so many pixels along a side."""
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or not 1 <= value <= MAX_SIDE:
        raise InputError(
            f"{name} is {value}; expected a whole number of pixels from 1 to "
            f"{MAX_SIDE}."
        )
