"""What an avatar is made of: sizes and switches of its networks and its cloud."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class GaussianConfig:
    """The canonical cloud."""

    capacity: int = 24_000
    """Slots for Gaussians; fixed during a run."""
    init_frames: int = 4
    """Point clouds used at the start: those of the most neutral training frames, and
    --gaussians.expressive-frames."""
    expressive_frames: int = 8
    """More clouds, of the most different expressions, where a head model takes them
    back to canonical space: they show teeth, and skin that is folded away at rest. All
    clouds share the slots."""
    init_share: float = 0.8
    """Share of the slots that are filled at the start, where density is controlled."""
    init_scale: float = 0.8
    """Standard deviations at the start, in units of the distance to the next points."""
    bones: bool = True
    """Let the skull carry eyes and upper teeth, and the jaw what else is in the
    mouth, where there is a head model and label maps tell what is what."""
    feature_dim: int = 8
    """Length of each Gaussian's latent feature vector."""
    sh_degree: int = 0
    """Degree of the view-dependent colour, 0 to 3."""


@dataclasses.dataclass(frozen=True)
class ForwardConfig:
    """F, the forward motion that is distilled from the head model."""

    source: Literal["auto", "distilled", "none"] = "auto"
    """none: G alone moves the Gaussians; auto: distilled where the codes are those of
    the head tracker."""
    tuned: bool = False
    """Train F on at --optim.coarse, and let it read the Gaussians' features."""
    hidden: int = 128
    """Width of the hidden layers."""
    layers: int = 4
    """Number of hidden layers."""
    octaves: int = 6
    """Octaves of the positional encoding."""
    steps: int = 4_000
    """Steps of the distillation."""
    detail_rate: float = 5e-4
    """Step size of G beside F, in the place of --optim.detail."""
    detail_reach: float = 0.05
    """Share of its motion that G has beside F: a G that moves Gaussians far, soon
    spoils what F gets right."""
    detail_residual: float = 0.1
    """Weight of G's residuals beside F, in the place of --loss.residual."""


@dataclasses.dataclass(frozen=True)
class DetailConfig:
    """G, the detail network."""

    enabled: bool = True
    """Without it, F alone moves the Gaussians; without both, the avatar is static."""
    reads_features: bool = True
    """Let G read each Gaussian's latent features beside its place."""
    hidden: int = 64
    """Width of the hidden layers."""
    layers: int = 4
    """Number of hidden layers."""
    octaves: int = 2
    """Octaves of the positional encoding; few keep the motion smooth."""
    symmetric: bool = False
    """Share G between left and right, if the names of the code come in pairs."""
    code_noise: float = 0.02
    """Standard deviation of the noise on the codes that G reads in training; codes of
    the head tracker are measured in their own deviations."""
    tracking_noise: float = 0.3
    """Noise that codes of the head tracker are taken to have, in the deviations of the
    head model: G hardly hears directions of them that vary less in the training frames.
    0: it hears all."""


@dataclasses.dataclass(frozen=True)
class ScreenConfig:
    """The screen-space network, which is there if --loss.screen is not 0."""

    width: int = 8
    """Channels at full size; twice as many at each of two halvings."""
    start: float = 0.3
    """Share of the steps after which it is trained."""
