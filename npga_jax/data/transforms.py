"""Camera files of the NeRF kind (transforms.json): what VHAP and nerfstudio share.

Poses are camera-to-world with OpenGL's axes (x right, y up, z backward).
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from npga_jax.core import InputError
from npga_jax.data.calibration import check_pose, refuse_distortion
from npga_jax.data.image_set import read_json

_MODELS = ("", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")
"""Lens models that are pinholes if their distortion is zero."""


class Frame(NamedTuple):
    """An entry of `frames`, with what all of them share where it lacks that."""

    source: Path  # the JSON file
    number: int  # in it
    values: dict[str, Any]

    def get(self, key: str) -> Any:
        """A value that must be there."""
        if key not in self.values:
            raise InputError(
                f"{self.source}: frame {self.number} lacks '{key}'; it has "
                f"{', '.join(self.values)}. Export it again."
            )
        return self.values[key]

    def number_of(self, key: str) -> float:
        """A finite number that must be there."""
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            value = math.nan
        if not math.isfinite(value):
            raise InputError(
                f"{self.source}: '{key}' of frame {self.number} is "
                f"{self.values[key]!r}; expected a finite number. Export it again."
            )
        return float(value)

    def file(self, key: str) -> Path:
        """A path that must be there, below the JSON file's folder."""
        value = self.get(key)
        if not isinstance(value, str) or not value:
            raise InputError(
                f"{self.source}: '{key}' of frame {self.number} is {value!r}; expected "
                "a path. Export it again."
            )
        return self.source.parent / value


def read_frames(path: Path) -> list[Frame]:
    """Reads a camera file.

    Raises:
      InputError: it is missing or damaged, has no frames, or its lenses distort.
    """
    content = read_json(path, "cameras, with 'frames'")
    frames = content.pop("frames", None)
    if not isinstance(frames, list) or not frames:
        raise InputError(
            f"{path} has no 'frames'; it has {', '.join(content) or 'nothing'}. Export "
            "it again."
        )
    refuse_distortion(path, content)
    found = []
    for number, values in enumerate(frames):
        if not isinstance(values, dict):
            raise InputError(f"{path}: frame {number} is no JSON object.")
        refuse_distortion(path, values)
        frame = Frame(path, number, {**content, **values})
        model = str(frame.values.get("camera_model", ""))
        if model.upper() not in _MODELS:
            raise InputError(
                f"{path}: the camera_model of frame {number} is '{model}'; expected a "
                "pinhole. Undistort the images first."
            )
        found.append(frame)
    return found


def image_size(frame: Frame) -> tuple[int, int]:
    """The image size (W, H) that a frame's intrinsics are meant for."""
    size = int(frame.number_of("w")), int(frame.number_of("h"))
    if min(size) < 1:
        raise InputError(
            f"{frame.source}: frame {frame.number} is {size[0]}x{size[1]} by 'w' and "
            "'h'; expected an image's size in pixels."
        )
    return size


def focal_lengths(frame: Frame, size: tuple[int, int]) -> tuple[float, float]:
    """Fx and fy in pixels; from the angle of view where they are not stated."""
    if "fl_x" not in frame.values:
        angle = frame.number_of("camera_angle_x")
        fx = 0.5 * size[0] / math.tan(0.5 * angle) if 0 < angle < math.pi else 0.0
    else:
        fx = frame.number_of("fl_x")
    fy = frame.number_of("fl_y") if "fl_y" in frame.values else fx
    if min(fx, fy) <= 0:
        raise InputError(
            f"{frame.source}: the focal lengths of frame {frame.number} are {fx:g} and "
            f"{fy:g}; expected positive ones."
        )
    return fx, fy


def world_to_camera(frame: Frame) -> np.ndarray:
    """[4, 4] float64 with OpenCV's axes.

    Raises:
      InputError: the pose is not rigid.
    """
    try:
        pose = np.array(frame.get("transform_matrix"), np.float64)
    except (TypeError, ValueError):
        pose = np.empty(0)
    what = f"{frame.source}: 'transform_matrix' of frame {frame.number}"
    wanted = (
        "expected a 4x4 matrix that takes points of the camera (OpenGL axes) to the "
        "world, a rotation and a translation with the last row 0 0 0 1."
    )
    check_pose(what, pose, wanted)
    pose[:3, 1:3] *= -1
    return invert_rigid(pose)


def invert_rigid(pose: np.ndarray) -> np.ndarray:
    """The inverse of a rotation with a translation, [4, 4]."""
    inverse = np.eye(4)
    inverse[:3, :3] = pose[:3, :3].T
    inverse[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return inverse
