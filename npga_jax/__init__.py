"""Neural Parametric Gaussian Avatars in functional JAX."""

__version__ = "0.1.0"
