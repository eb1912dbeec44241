"""The neural parametric head model: MonoNPHM's networks, prior and fitting.

Space: NPHM units, 1 unit = 0.25 m (FLAME metres x 4), +x the subject's left, +y up,
+z out of the face. Canonical is the neutral head with the mouth closed, posed is the
same head with an expression; neither has the pose of the head in it, which is a
similarity outside.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
