"""The forward motion F, distilled from a head model's backward field for one person."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
