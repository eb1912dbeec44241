"""Landmarks of a face in one image, by MediaPipe's face landmarker."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from npga_jax.core import InputError
from npga_jax.data import NUM_LANDMARKS

_SUFFIX = ".task"


class Detector:
    """MediaPipe's face landmarker, on one image after the other."""

    def __init__(self, mediapipe: Any, landmarker: Any):
        self._mediapipe, self._landmarker = mediapipe, landmarker

    def find(self, image: np.ndarray) -> np.ndarray | None:
        """The landmarks of the clearest face, as `find_all` gives them; or None."""
        faces = self.find_all(image)
        return faces[0] if faces else None

    def find_all(self, image: np.ndarray) -> list[np.ndarray]:
        """The landmarks of all faces, at most as many as the detector was opened for.

        Args:
          image: [H, W, 3] uint8.

        Returns:
          [478, 2] float32 each: x and y as shares of width and height, from the upper
          left corner of the first pixel.
        """
        mp = self._mediapipe
        data = np.ascontiguousarray(image)
        picture = mp.Image(image_format=mp.ImageFormat.SRGB, data=data)
        found = []
        for face in self._landmarker.detect(picture).face_landmarks:
            points = np.array([(p.x, p.y) for p in face], np.float32)
            if points.shape == (NUM_LANDMARKS, 2) and np.isfinite(points).all():
                found.append(points)
        return found


def check_model(path: Path) -> None:
    """Finds out before long work whether landmarks can be found.

    Args:
      path: of the face landmarker's model.

    Raises:
      InputError: see `open_detector`.
    """
    with open_detector(path):
        pass


@contextlib.contextmanager
def open_detector(path: Path, *, num_faces: int = 1) -> Iterator[Detector]:
    """Opens MediaPipe's face landmarker, which `npga_jax[landmarks]` installs.

    Args:
      path: of the model, `face_landmarker.task`.
      num_faces: how many faces of an image are found at most.

    Raises:
      InputError: there is no such file, it is no model, or mediapipe is missing.
    """
    if path.suffix != _SUFFIX:
        raise InputError(
            f"--landmarks {path}: expected a model of MediaPipe's face landmarker, "
            f"face_landmarker{_SUFFIX}."
        )
    if not path.is_file():
        raise InputError(
            f"--landmarks {path}: there is no such file. Download MediaPipe's "
            "face_landmarker.task and give its path."
        )
    try:
        import mediapipe  # pyright: ignore[reportMissingImports]
        from mediapipe.tasks import python as tasks  # pyright: ignore
    except ImportError as error:
        raise InputError(
            f"--landmarks needs mediapipe, which cannot be imported ({error}). Install "
            'it with: pip install "mediapipe>=1.2"'
        ) from error
    vision = tasks.vision
    try:
        options = vision.FaceLandmarkerOptions(
            base_options=tasks.BaseOptions(model_asset_path=str(path)),
            num_faces=num_faces,
        )
        landmarker = vision.FaceLandmarker.create_from_options(options)
    except OSError as error:
        raise InputError(
            f"--landmarks: mediapipe cannot be used here ({error}). Install the "
            "library of the system that it lacks, or leave --landmarks out."
        ) from error
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"--landmarks {path} is no model of MediaPipe's face landmarker "
            f"({' '.join(str(error).split())[:200]}). Download face_landmarker.task "
            "again."
        ) from error
    with landmarker:
        yield Detector(mediapipe, landmarker)
