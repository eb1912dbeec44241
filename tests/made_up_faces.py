"""A stand-in for mediapipe, which finds "faces" without a network."""

import sys
import types
from pathlib import Path

import numpy as np

from npga_jax.data import NUM_LANDMARKS
from tests.synthetic_capture import BACKGROUND

_MODEL = b"a model"


class _Landmarker:
    """Sees a face in whatever differs from the background."""

    def __init__(self, shown):
        self._shown = shown

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def detect(self, image):
        self._shown(image)
        off = np.abs(image.astype(int) - BACKGROUND).max(axis=-1) > 15
        faces = []
        if off.any():
            rows, columns = (x + 0.5 for x in np.nonzero(off))
            y = np.linspace(rows.min(), rows.max(), NUM_LANDMARKS)
            x = np.full(NUM_LANDMARKS, columns.mean())
            # Forehead, chin, and the sides, by which it looks at the cameras.
            y[[10, 152, 234, 454]] = rows.min(), rows.max(), rows.mean(), rows.mean()
            x[[234, 454]] = columns.min(), columns.max()
            at = zip(x / off.shape[1], y / off.shape[0], strict=True)
            faces = [[types.SimpleNamespace(x=u, y=v, z=0.0) for u, v in at]]
        return types.SimpleNamespace(face_landmarks=faces)


def write_model(path: Path) -> Path:
    """A file that the stand-in takes for a model."""
    path.write_bytes(_MODEL)
    return path


def install(monkeypatch, shown=lambda image: None):
    """Makes `import mediapipe` find the stand-in.

    Args:
      monkeypatch: pytest's.
      shown: called with each image before it is looked at.
    """

    def create(options):
        if Path(options.base_options.model_asset_path).read_bytes() != _MODEL:
            raise RuntimeError("Unable to open zip archive.")
        return _Landmarker(shown)

    vision = types.SimpleNamespace(
        FaceLandmarkerOptions=types.SimpleNamespace,
        FaceLandmarker=types.SimpleNamespace(create_from_options=create),
    )
    python = types.ModuleType("mediapipe.tasks.python")
    tasks = types.ModuleType("mediapipe.tasks")
    mediapipe = types.ModuleType("mediapipe")
    python.__dict__.update(vision=vision, BaseOptions=types.SimpleNamespace)
    tasks.__dict__.update(python=python)
    mediapipe.__dict__.update(
        tasks=tasks,
        Image=lambda image_format, data: data,
        ImageFormat=types.SimpleNamespace(SRGB=1),
    )
    for module in (mediapipe, tasks, python):
        monkeypatch.setitem(sys.modules, module.__name__, module)
