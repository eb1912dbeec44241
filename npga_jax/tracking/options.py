"""Settings of tracking."""

import dataclasses
from typing import Annotated

from npga_jax.core import Range

_MOST = 10**7
"""Of anything that is counted."""
_COUNT = Range(1, _MOST)
_DISTANCE = Range(0.01)


@dataclasses.dataclass(frozen=True)
class TrackingOptions:
    """How a subject is tracked. The defaults are for clouds of millimetre accuracy."""

    points: Annotated[int, Range(100, _MOST)] = 2000
    """Points of a frame in each iteration, drawn once."""
    identity_frames: Annotated[int, _COUNT] = 8
    """Frames, spread over the capture, that the identity is found from first."""
    joint_frames: Annotated[int, _COUNT] = 24
    """Frames that the identity is refined on in the end."""
    noise_mm: Annotated[float, _DISTANCE] = 4.0
    """Distance that counts as much as a code one deviation from the mean, while the
    identity is sought. Larger values keep codes closer to heads that the model was
    trained on: clouds err in the same way at many points, so this is more than their
    noise."""
    expression_noise_mm: Annotated[float, _DISTANCE] = 1.0
    """The same once the identity is held. An identity that followed the clouds as
    closely would bulge where hair hides the skin."""
    smoothness: float = 0.2
    """Pull between expressions of neighbouring frames, in units of one deviation."""
    color_noise: float = 0.02
    """Difference of colour channels that counts as much as a code one deviation from
    the mean, in the last stage; 0: fit geometry alone. The light changes with the
    expression, so this is far more than the noise of colours."""
    lid_noise_mm: float = 1.0
    """Distance of skin from where the eyes' openings are, and of eyes from without,
    that counts as much as a code one deviation from the mean; 0: lids are fitted by
    distances and colours alone. Only where there are label maps."""
    landmark_noise_mm: float = 3.0
    """The same of landmarks, where the capture has some; 0: they only say where heads
    are at first."""
    texture_frames: Annotated[int, _COUNT] = 24
    """Most neutral frames, whose colours are those of the canonical head."""
    symmetry: float = 0.0
    """Pull between the local codes of mirror pairs, likewise."""
    seed: int = 0
    """Draws the points."""
