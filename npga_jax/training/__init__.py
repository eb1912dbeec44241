"""Trains an avatar: the method, the state, one step, density control, the loop."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
