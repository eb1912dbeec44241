"""Products of matrices in full float32, whatever a device would round them to."""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax

Function = TypeVar("Function", bound=Callable)


def exact_products(fn: Function) -> Function:
    """Multiplies float32 matrices in float32 in all that `fn` traces, gradients too.

    GPUs would round the factors to 10 bits and TPUs to 7, which distances, root finding
    and the tracker cannot do with; on an H200 it makes a training step 6 to 25 % longer
    (docs/notes/performance.md). Beneath `jax.jit`, if there is one.

    Args:
      fn: any function; may call itself or others that are wrapped.

    Returns:
      The same function, to the bit on a CPU.
    """

    # Not the context manager itself as a decorator: it is not made to be entered twice.
    @functools.wraps(fn)
    def exact(*args, **kwargs):
        with jax.default_matmul_precision("highest"):
            return fn(*args, **kwargs)

    return exact  # type: ignore[return-value]
