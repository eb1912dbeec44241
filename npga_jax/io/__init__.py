"""Files that people look at: meshes, clouds of Gaussians, videos, pictures."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
