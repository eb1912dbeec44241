"""What principal points tell of the images that intrinsics are for."""

from collections.abc import Sequence

import numpy as np

from npga_jax.diagnosis.causes import SIZES, size_cause
from npga_jax.diagnosis.findings import Diagnosis
from npga_jax.diagnosis.view import View

_NEAR, _FAR = 0.1, 0.2
"""Shares of the image's size that a principal point is off the centre."""


def diagnose_intrinsics(views: Sequence[View]) -> list[Diagnosis]:
    """Says so if the principal points fit images of another size.

    Without a cloud, nothing else tells the size: mattes fit to any.
    """
    sizes = [[view.camera.width, view.camera.height] for view in views]
    points = [view.camera.K[:2, 2] for view in views]
    place = np.median(np.array(points) / sizes, axis=0)
    if np.abs(place - 0.5).max() <= _FAR:
        return []
    for factor in SIZES:
        if np.abs(place / factor - 0.5).max() <= _NEAR:
            cause = size_cause(factor)
            return [
                Diagnosis(
                    cause.what.format(cameras="all cameras"),
                    "likely",
                    f"the principal points are at {place[0]:.0%} of the width and "
                    f"{place[1]:.0%} of the height; of such images it would be "
                    f"{place[0] / factor:.0%} and {place[1] / factor:.0%}",
                    cause.remedy.format(cameras="all cameras"),
                )
            ]
    return []
