"""Which part of a capture is used, and how: data only."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from npga_jax.core import Only, Range, take_types


@dataclasses.dataclass(frozen=True)
class CaptureConfig:
    """Which part of a capture is used, and how."""

    width: int = 275
    """Width in pixels at which images are decoded; the height follows the aspect."""
    frame_stride: int = 0
    """Use every n-th video frame; 0 picks the stride that leaves about 24 a second."""
    layout: Literal[
        "auto", "nersemble", "vhap", "nerfstudio", "colmap", "diffusion-avatars"
    ] = "auto"
    """How the subject's folder is laid out; auto: as what lies there says."""
    held_out_sequence: str = "FREE"
    """Sequence never trained on: the self-reenactment test. Other layouts without FREE
    hold out what they say themselves, or their last; those of one moment none."""
    held_out_camera: str = "222200037"
    """Camera never trained on: the novel-view test. Other layouts without that serial
    hold out the camera in the middle."""
    ignore_cameras: tuple[str, ...] = ()
    """Serials to leave out everywhere."""
    ignore_sequences: tuple[str, ...] = ()
    """Sequences (name or prefix) to leave out."""
    mattes: bool = True
    """Use the mattes (alpha_maps) that say where the person is; without them, the
    background counts as part of the person."""
    driving: str = ""
    """Driving file to use in every sequence, by its name without .npz; to be given
    where there are several. nphm: the codes that experiments/track.py makes; flame,
    nphm200, still: those that other layouts bring."""
    principal_point: Annotated[
        Literal["bottom", "top"], Only("capture.layout", ("auto", "vhap"))
    ] = "bottom"
    """The edge that cy of VHAP exports counts from; the printed offset tells what the
    other one would make of it."""
    world_unit: Annotated[
        float,
        Range(is_open=True),
        Only("capture.layout", ("auto", "nerfstudio", "colmap")),
    ] = 1.0
    """Metres of one unit of a nerfstudio or COLMAP world, which may have any scale."""
    cache_dir: Path | None = None
    """Where decoded frames and tracked codes are kept; default: $NPGA_CACHE, else
    ~/.cache/npga_jax."""

    def __post_init__(self) -> None:
        take_types(self)


def say_wrong_settings(cfg: CaptureConfig) -> str:
    """Says what no capture can be opened with, or "" if nothing is wrong."""
    if cfg.width < 1 or cfg.frame_stride < 0:
        return (
            f"--capture.width {cfg.width} and --capture.frame-stride "
            f"{cfg.frame_stride}: expected a width of at least 1 and a stride of at "
            "least 0."
        )
    if "/" in cfg.driving or cfg.driving.endswith(".npz"):
        return (
            f"--capture.driving {cfg.driving}: expected the name alone, without folder "
            f"and .npz, like --capture.driving {Path(cfg.driving).stem}."
        )
    return ""
