"""A tile-based differentiable Gaussian rasterizer: JAX, with kernels on CPU and GPU."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
