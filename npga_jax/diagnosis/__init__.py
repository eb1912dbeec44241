"""Why a capture does not fit together: causes, how sure they are, what mends them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
