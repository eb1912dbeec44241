"""From what a rig hands out to a capture that can be trained on: mattes, clouds."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
