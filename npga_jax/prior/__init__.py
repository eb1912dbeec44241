"""Training a head model: registered scans, anchors, first codes, the auto-decoder."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
