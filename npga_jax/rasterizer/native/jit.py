"""How the kernels' functions are compiled."""

from numba import njit

inner = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""For functions that only other compiled ones call: half the work for the compiler."""
