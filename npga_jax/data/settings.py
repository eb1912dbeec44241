"""Which part of a capture is used, and how: data only."""

import dataclasses
from pathlib import Path

from npga_jax.core import take_types


@dataclasses.dataclass(frozen=True)
class CaptureConfig:
    """Which part of a capture is used, and how."""

    width: int = 275
    """Width in pixels at which images are decoded; the height follows the aspect."""
    frame_stride: int = 0
    """Use every n-th video frame; 0 picks the stride that leaves about 24 a second."""
    held_out_sequence: str = "FREE"
    """Sequence never trained on: the self-reenactment test."""
    held_out_camera: str = "222200037"
    """Camera never trained on: the novel-view test."""
    ignore_cameras: tuple[str, ...] = ()
    """Serials to leave out everywhere."""
    ignore_sequences: tuple[str, ...] = ()
    """Sequences (name or prefix) to leave out."""
    mattes: bool = True
    """Use the mattes (alpha_maps) that say where the person is; without them, the
    background counts as part of the person."""
    driving: str = ""
    """Driving file to use in every sequence, by its name without .npz; to be given
    where there are several. nphm: the codes that experiments/track.py makes."""
    cache_dir: Path | None = None
    """Where decoded frames and tracked codes are kept; default: $NPGA_CACHE, else
    ~/.cache/npga_jax."""

    def __post_init__(self) -> None:
        take_types(self)
