"""Where kernels for GPUs can be lowered without a GPU."""

import jax
import pytest

needs_gpu_lowering = pytest.mark.skipif(
    jax.__version_info__ >= (0, 11) and jax.default_backend() != "gpu",
    reason="JAX from 0.11 on lowers Triton kernels only where there is a GPU",
)
IF_LOWERED = pytest.param("cuda", marks=needs_gpu_lowering)
"""The platform, as a parameter of tests."""
