"""Neural Parametric Gaussian Avatars in functional JAX.

Nothing heavy is imported before it is asked for: `import npga_jax` takes milliseconds.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
