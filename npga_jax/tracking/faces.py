"""The landmarks of one face through a video."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from npga_jax.core import InputError, Progress
from npga_jax.data import NUM_LANDMARKS, probe, read_frames
from npga_jax.tracking.face_detector import open_detector

_MOST_FACES = 3
_FARTHEST = 0.7
"""Heights of a face that it may move from one frame to the next, and not be another."""
_USUAL_FPS = 25.0


class Faces(NamedTuple):
    """The frames of a video in which a face was found."""

    frame_id: np.ndarray  # [T] int64 moments, ascending
    pixels: np.ndarray  # [T, 478, 2] float32, from the corner of the first pixel
    num_frames: int  # of the video
    num_crowded: int  # frames with other faces beside it
    width: int
    height: int
    fps: float


def find_faces(video: Path, model: Path, *, progress: bool = True) -> Faces:
    """Follows the largest face of a video's first frames through all of it.

    Args:
      video: any that can be decoded; turned as it is to be shown.
      model: MediaPipe's face landmarker.
      progress: whether to say on stderr how far it is.

    Raises:
      InputError: the video or the model cannot be used, or there is no face.
    """
    info = probe(video, "rgb")
    size = np.array([info.width, info.height])
    frame_id, pixels = [], []
    crowded = count = 0
    with (
        open_detector(model, num_faces=_MOST_FACES) as detector,
        Progress("faces", max(info.contents.num_frames, 1), show=progress) as say,
    ):
        last: np.ndarray | None = None
        for image in read_frames(video, "rgb"):
            found = [face * size for face in detector.find_all(image)]
            crowded += len(found) > 1
            face = _same(found, last)
            if face is not None:
                frame_id.append(count)
                pixels.append(face)
                last = face
            count += 1
            say(count)
    if not frame_id:
        raise InputError(
            f"{video}: no face was found in any of its {count} frames; expected one "
            "that looks at the camera, not smaller than a tenth of the picture."
        )
    return Faces(
        np.array(frame_id, np.int64),
        np.stack(pixels).astype(np.float32).reshape(-1, NUM_LANDMARKS, 2),
        count,
        crowded,
        info.width,
        info.height,
        info.fps or _USUAL_FPS,
    )


def _same(found: list[np.ndarray], last: np.ndarray | None) -> np.ndarray | None:
    """The face that is followed, among those of a frame; None where it is lost."""
    if not found:
        return None
    if last is None:
        return max(found, key=lambda face: np.ptp(face[:, 1]))
    middle, height = last.mean(axis=0), np.ptp(last[:, 1])
    away = [np.linalg.norm(face.mean(axis=0) - middle) / height for face in found]
    nearest = int(np.argmin(away))
    # A face that is alone is the same one, come back; others may be somebody else.
    if away[nearest] > _FARTHEST and len(found) > 1:
        return None
    return found[nearest]
