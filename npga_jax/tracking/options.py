"""Settings of tracking."""

import dataclasses
import math

from npga_jax.core import InputError


@dataclasses.dataclass(frozen=True)
class TrackingOptions:
    """How a subject is tracked. The defaults are for clouds of millimetre accuracy."""

    points: int = 2000
    """Points of a frame in each iteration, drawn once."""
    identity_frames: int = 8
    """Frames, spread over the capture, that the identity is found from first."""
    joint_frames: int = 24
    """Frames that the identity is refined on in the end."""
    noise_mm: float = 4.0
    """Distance that counts as much as a code one deviation from the mean, while the
    identity is sought. Larger values keep codes closer to heads that the model was
    trained on: clouds err in the same way at many points, so this is more than their
    noise."""
    expression_noise_mm: float = 1.0
    """The same once the identity is held. An identity that followed the clouds as
    closely would bulge where hair hides the skin."""
    smoothness: float = 0.2
    """Pull between expressions of neighbouring frames, in units of one deviation."""
    color_noise: float = 0.02
    """Difference of colour channels that counts as much as a code one deviation from
    the mean, in the last stage; 0: fit geometry alone. The light changes with the
    expression, so this is far more than the noise of colours."""
    texture_frames: int = 24
    """Most neutral frames, whose colours are those of the canonical head."""
    symmetry: float = 0.0
    """Pull between the local codes of mirror pairs, likewise."""
    seed: int = 0
    """Draws the points."""


_LEAST = {
    "points": 100,
    "identity_frames": 1,
    "joint_frames": 1,
    "texture_frames": 1,
    "noise_mm": 0.01,
    "expression_noise_mm": 0.01,
}
_MOST = 1e7


def check_options(options: TrackingOptions) -> None:
    """Refuses numbers that no tracking can have.

    Raises:
      InputError: naming the first of them.
    """
    for name, value in dataclasses.asdict(options).items():
        least = _LEAST.get(name, 0)
        if not math.isfinite(value) or not least <= value <= _MOST:
            raise InputError(
                f"--tracking.{name.replace('_', '-')} is {value}; expected a number "
                f"from {least} to {_MOST:.0f}."
            )
