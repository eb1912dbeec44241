"""What a rig hands out: videos, calibration, and a clean plate per camera."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from npga_jax.core import InputError
from npga_jax.data import (
    CaptureConfig,
    find_sources,
    probe,
    read_picture,
    survey_nersemble,
)

FEWEST_CAMERAS = 3
"""That stereo needs."""
PLATES = Path("sequences") / "BACKGROUND"
ALPHA_MAPS = "alpha_maps"
CLOUDS = "pointclouds"
LABELS = "segmentation"
CODES = "tracking"
_PLATE_NAME = re.compile(r"image_(.+)\.(jpg|jpeg|png)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class RawCapture:
    """The files of one subject."""

    folder: Path
    sequences: tuple[str, ...]
    cameras: tuple[str, ...]
    videos: Mapping[tuple[str, str], Path]  # by sequence and camera
    num_frames: Mapping[tuple[str, str], int]  # of them, as stated
    plates: Mapping[str, Path]  # by camera that is used; not all need have one
    notes: tuple[str, ...]  # about what is ignored
    video_size: tuple[int, int]  # (W, H)
    fps: float
    stride: int


def find_raw(root: Path, subject: str, cfg: CaptureConfig) -> RawCapture:
    """Looks through a subject's folder.

    Args:
      root: holds the subjects.
      subject: the folder's name.
      cfg: which cameras, sequences and frames are used.

    Raises:
      InputError: for the first thing that is wrong with videos or calibration.
    """
    cfg = dataclasses.replace(cfg, mattes=False, driving="", width=1)
    survey = survey_nersemble(root, subject, cfg, need_driving=False)
    if survey.problems:
        raise InputError(survey.problems[0])
    videos = {
        (sequence, camera): path
        for sequence in survey.sequences
        for camera, path in find_sources(survey.folder, sequence, "rgb").items()
        if camera in survey.cameras
    }
    return RawCapture(
        folder=survey.folder,
        sequences=survey.sequences,
        cameras=survey.cameras,
        videos=videos,
        num_frames={(s, c): survey.num_frames((s, c, "rgb")) for s, c in videos},
        plates={
            camera: path
            for camera, path in _find_plates(survey.folder / PLATES).items()
            if camera in survey.cameras
        },
        notes=tuple(survey.notes),
        video_size=survey.video_size,
        fps=survey.video_fps,
        stride=survey.stride,
    )


def can_be_outlined(raw: RawCapture) -> bool:
    """Whether stereo has to and can stand in for plates: none, but enough cameras."""
    return not raw.plates and len(raw.cameras) >= FEWEST_CAMERAS


def check_plates(raw: RawCapture, camera: str) -> None:
    """Refuses a camera that has no plate, and names all that have none.

    Raises:
      InputError: it has none.
    """
    lacking = [c for c in raw.cameras if c not in raw.plates]
    if camera not in lacking:
        return
    place = raw.folder / PLATES
    if len(lacking) == len(raw.cameras):
        raise InputError(
            f"there are no clean plates in {place}; expected image_SERIAL.jpg for each "
            "camera: its image without the person. Supply them, or alpha_maps of your "
            "own for all videos, or train with --capture.no-mattes. (Outlines stand in "
            f"where {FEWEST_CAMERAS} cameras or more have neither.)"
        )
    raise InputError(
        f"{place} has no plate image_SERIAL.jpg of {', '.join(lacking)} but has those "
        f"of {len(raw.cameras) - len(lacking)} other cameras. Supply them, or pass "
        f"--capture.ignore-cameras {' '.join(lacking)}."
    )


def read_plate(path: Path, video: Path) -> np.ndarray:
    """Reads a clean plate: [H, W, 3] uint8.

    Args:
      path: of the picture.
      video: the camera's; for the message.

    Raises:
      InputError: it cannot be read, or is of another size than the video.
    """
    plate = read_picture(path, "rgb")
    info = probe(video, "rgb")
    if plate.shape[:2] != (info.height, info.width):
        raise InputError(
            f"{path} is {plate.shape[1]}x{plate.shape[0]}, but {video} is "
            f"{info.width}x{info.height}. A plate must be the same camera's image, of "
            "the same size."
        )
    return plate


def _find_plates(folder: Path) -> dict[str, Path]:
    plates: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if match := _PLATE_NAME.fullmatch(path.name):
            plates.setdefault(match[1], path)
    return plates
