"""The avatar: canonical Gaussians, moved by F and G, seen by cameras."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
