"""Reads camera_params.json and color_calibration.json of the NeRSemble layout."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from npga_jax.core import InputError
from npga_jax.data.capture import Camera

_FULL_WIDTH, _FULL_HEIGHT = 2200, 3208  # What NeRSemble's shared K is meant for.


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """The rig: one K and one world-to-camera matrix per serial."""

    path: Path
    Ks: dict[str, np.ndarray]  # [3, 3] float64
    world2cam: dict[str, np.ndarray]  # [4, 4] float64, OpenCV, metres
    image_size: tuple[int, int] | None  # (W, H) that K is meant for; None: the video's


def load_calibration(path: Path) -> Calibration:
    """Reads camera_params.json.

    A list as "intrinsics" is one K for all cameras, for images of "width" x "height"
    (2200 x 3208 if not given). A dict is one K per serial, for the videos as they are.

    Raises:
      InputError: if the file is missing or not such a calibration.
    """
    content = _read_json(path)
    poses, intrinsics = content.get("world_2_cam"), content.get("intrinsics")
    if not isinstance(poses, dict) or not poses or intrinsics is None:
        raise InputError(
            f"{path} must have 'world_2_cam' (a 4x4 matrix per serial) and "
            f"'intrinsics'; it has {', '.join(map(repr, content)) or 'nothing'}."
        )
    world2cam = {s: _read_pose(path, s, poses[s]) for s in poses}
    if isinstance(intrinsics, dict):
        missing = [s for s in poses if s not in intrinsics]
        if missing:
            raise InputError(
                f"{path}: 'intrinsics' lacks {', '.join(missing)}, which "
                "'world_2_cam' has. Complete the file."
            )
        Ks = {s: _read_K(path, f"of {s}", intrinsics[s]) for s in poses}
        return Calibration(path, Ks, world2cam, None)
    K = _read_K(path, "of all cameras", intrinsics)
    width = content.get("width", _FULL_WIDTH)
    height = content.get("height", _FULL_HEIGHT)
    if not all(isinstance(n, int) and n > 0 for n in (width, height)):
        raise InputError(
            f"{path}: 'width' and 'height' are {width!r} and {height!r}; expected the "
            "pixels of the images that the intrinsics are meant for."
        )
    return Calibration(path, dict.fromkeys(poses, K), world2cam, (width, height))


def make_camera(
    calibration: Calibration,
    camera_id: str,
    video_size: tuple[int, int],
    size: tuple[int, int],
) -> Camera:
    """Scales a camera to the images that are used.

    Args:
      calibration: The rig.
      camera_id: Serial.
      video_size: (W, H) of the video.
      size: (W, H) of the images.

    Raises:
      InputError: if the serial is not in the calibration, or the video has another
        aspect ratio than the images that K is meant for.
    """
    if camera_id not in calibration.world2cam:
        raise InputError(
            f"camera {camera_id} has videos but is not in {calibration.path}. Add it, "
            f"or leave it out with --capture.ignore-cameras {camera_id}."
        )
    full = np.array(calibration.image_size or video_size, np.float64)
    expected_height = full[1] * video_size[0] / full[0]
    if abs(expected_height - video_size[1]) > 1:
        raise InputError(
            f"the videos are {video_size[0]}x{video_size[1]}, but {calibration.path} "
            f"is for {full[0]:.0f}x{full[1]:.0f}: the aspect ratios differ. State the "
            "size that the intrinsics are meant for there as 'width' and 'height'."
        )
    # Pixel centres are at +0.5, so this scaling holds for the principal point too.
    K = calibration.Ks[camera_id] * np.array([*(np.array(size) / full), 1.0])[:, None]
    return Camera(
        K=K.astype(np.float32),
        world2cam=calibration.world2cam[camera_id].astype(np.float32),
        width=size[0],
        height=size[1],
        camera_id=camera_id,
    )


def load_color_calibration(path: Path) -> dict[str, np.ndarray]:
    """Reads color_calibration.json: a [3, n] matrix per serial; {} without the file.

    Raises:
      InputError: if the file holds something else.
    """
    if not path.is_file():
        return {}
    content = _read_json(path)
    return {s: _read_matrix(path, f"of {s}", m, (3, None)) for s, m in content.items()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"there is no {path}. It is part of every NeRSemble download; fetch the "
            "subject's calibration again."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object.")
    return content


def _read_matrix(
    path: Path, what: str, value: Any, shape: tuple[int, int | None]
) -> np.ndarray:
    try:
        matrix = np.array(value, np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    wanted = f"{shape[0]}x{shape[1] or 'n'}"
    is_shaped = matrix.ndim == 2 and matrix.shape[0] == shape[0]
    if not is_shaped or (shape[1] and matrix.shape[1] != shape[1]):
        got = "x".join(map(str, matrix.shape)) if matrix.size else "something else"
        raise InputError(f"{path}: the matrix {what} must be {wanted}, but is {got}.")
    if not np.isfinite(matrix).all():
        raise InputError(f"{path}: the matrix {what} is not finite.")
    return matrix


def _read_K(path: Path, whose: str, value: Any) -> np.ndarray:
    K = _read_matrix(path, f"'intrinsics' {whose}", value, (3, 3))
    if K[0, 0] <= 0 or K[1, 1] <= 0 or not np.allclose(K[2], [0, 0, 1]):
        raise InputError(
            f"{path}: 'intrinsics' {whose} must be [[fx, 0, cx], [0, fy, cy], "
            f"[0, 0, 1]] with positive fx and fy, but is {K.tolist()}."
        )
    return K


def _read_pose(path: Path, serial: str, value: Any) -> np.ndarray:
    pose = _read_matrix(path, f"'world_2_cam' of {serial}", value, (4, 4))
    R = pose[:3, :3]
    is_rotation = np.allclose(R @ R.T, np.eye(3), atol=1e-3) and np.linalg.det(R) > 0
    if not is_rotation or not np.allclose(pose[3], [0, 0, 0, 1], atol=1e-6):
        raise InputError(
            f"{path}: 'world_2_cam' of {serial} is not a rotation and a translation "
            "(OpenCV axes, metres, last row 0 0 0 1)."
        )
    return pose
