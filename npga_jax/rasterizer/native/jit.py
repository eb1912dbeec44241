"""How the kernels' functions are compiled."""

from typing import Any

import numba
from numba import extending

# Type checkers would count the context that numba passes first.
intrinsic: Any = extending.intrinsic
"""For functions that write LLVM's instructions."""

_njit: Any = numba.njit

inner = _njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""For functions that only other compiled ones call: half the work for the compiler."""
