"""What an avatar is made of: sizes and switches of its networks and its cloud."""

import dataclasses
from typing import Annotated, Literal

from npga_jax.core import Only, Range

_WITH_FORWARD = Only("forward.source", ("auto", "distilled"))
_WITH_DETAIL = Only("detail.enabled")


@dataclasses.dataclass(frozen=True)
class GaussianConfig:
    """The canonical cloud."""

    capacity: Annotated[int, Range(1, 2**24)] = 60_000
    """Slots for Gaussians; fixed during a run."""
    init_frames: Annotated[int, Range(1)] = 4
    """Point clouds used at the start: those of the most neutral training frames, and
    --gaussians.expressive-frames."""
    expressive_frames: Annotated[int, _WITH_FORWARD] = 8
    """More clouds, of the most different expressions, where a head model takes them
    back to canonical space: they show teeth, and skin that is folded away at rest. All
    clouds share the slots."""
    init_share: Annotated[
        float, Range(0, 1), Only("density.strategy", ("adaptive", "mcmc"))
    ] = 0.8
    """Share of the slots that are filled at the start, where density is controlled."""
    init_scale: float = 0.8
    """Standard deviations at the start, in units of the distance to the next points."""
    bones: Annotated[bool, _WITH_FORWARD] = True
    """Let the skull carry eyes and upper teeth, and the jaw what else is in the
    mouth, where there is a head model and label maps tell what is what."""
    feature_dim: Annotated[int, Range(1)] = 8
    """Length of each Gaussian's latent feature vector."""
    sh_degree: Annotated[int, Range(0, 3)] = 0
    """Degree of the view-dependent colour, 0 to 3."""


@dataclasses.dataclass(frozen=True)
class ForwardConfig:
    """F, the forward motion that is distilled from the head model."""

    source: Literal["auto", "distilled", "none"] = "auto"
    """none: G alone moves the Gaussians; auto: distilled where the codes are those of
    the head tracker."""
    tuned: Annotated[bool, _WITH_FORWARD] = False
    """Train F on at --optim.coarse, and let it read the Gaussians' features."""
    hidden: Annotated[int, Range(1), _WITH_FORWARD] = 128
    """Width of the hidden layers."""
    layers: Annotated[int, Range(1), _WITH_FORWARD] = 4
    """Number of hidden layers."""
    octaves: Annotated[int, Range(0, 16), _WITH_FORWARD] = 6
    """Octaves of the positional encoding."""
    steps: Annotated[int, Range(1), _WITH_FORWARD] = 4_000
    """Steps of the distillation."""
    detail_reach: Annotated[float, Range(0, 1), _WITH_FORWARD, _WITH_DETAIL] = 0.05
    """Share of its motion that G has beside F: a G that moves Gaussians far, soon
    spoils what F gets right."""


@dataclasses.dataclass(frozen=True)
class DetailConfig:
    """G, the detail network."""

    enabled: bool = True
    """Without it, F alone moves the Gaussians; without both, the avatar is static."""
    reads_features: Annotated[bool, _WITH_DETAIL] = True
    """Let G read each Gaussian's latent features beside its place."""
    hidden: Annotated[int, Range(1), _WITH_DETAIL] = 64
    """Width of the hidden layers."""
    layers: Annotated[int, Range(1), _WITH_DETAIL] = 4
    """Number of hidden layers."""
    octaves: Annotated[int, Range(0, 16), _WITH_DETAIL] = 2
    """Octaves of the positional encoding; few keep the motion smooth."""
    code_noise: Annotated[float, _WITH_DETAIL] = 0.02
    """Standard deviation of the noise on the codes that G reads in training, in the
    codes' own deviations: the head model's, or else those of the training frames."""
    tracking_noise: Annotated[float, _WITH_DETAIL, _WITH_FORWARD] = 0.3
    """Noise that codes of the head tracker are taken to have, in the deviations of the
    head model: G hardly hears directions of them that vary less in the training frames.
    0: it hears all."""


@dataclasses.dataclass(frozen=True)
class ScreenConfig:
    """The screen-space network, which is there if --loss.screen is not 0."""

    width: Annotated[int, Range(1), Only("loss.screen")] = 8
    """Channels at full size; twice as many at each of two halvings."""
    start: Annotated[float, Range(0, 1), Only("loss.screen")] = 0.3
    """Share of the steps after which it is trained."""
