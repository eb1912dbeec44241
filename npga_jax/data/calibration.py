"""Reads camera_params.json and color_calibration.json of the NeRSemble layout."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from npga_jax.core import InputError
from npga_jax.data.capture import Camera

_FULL_SIZE = 2200, 3208  # What NeRSemble's shared K is meant for.
_NEAR_CENTRE = 0.2
"""Share of an image's size that a principal point may be off its centre, where the
size is not stated: half of what an image of twice the size would make of it."""
_MAX_SKEW = 0.01  # Pixels.
_DISTORTION = re.compile(r".*(dist|radial|tangential|fisheye|skew).*|[kp]\d|d|xi")
"""Names under which lens models other than the pinhole are written."""


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """The rig: one K and one world-to-camera matrix per serial."""

    path: Path
    Ks: dict[str, np.ndarray]  # [3, 3] float64
    world2cam: dict[str, np.ndarray]  # [4, 4] float64, OpenCV, metres
    image_sizes: tuple[tuple[int, int] | None, ...]
    """(W, H) that K may be meant for; None is the video's. Where there are several, it
    is the one whose centre the principal point is near."""


def load_calibration(path: Path) -> Calibration:
    """Reads camera_params.json.

    A list as "intrinsics" is one K for all cameras, for images of "width" x "height";
    where these are not given, for 2200 x 3208 or for the videos as they are, whichever
    the principal point fits. A dict is one K per serial, for the videos or for that
    size likewise.

    Raises:
      InputError: if the file is missing or not such a calibration, or its cameras are
        not pinholes without skew and distortion at rigid poses.
    """
    content = _read_json(path)
    poses, intrinsics = content.get("world_2_cam"), content.get("intrinsics")
    if not isinstance(poses, dict) or not poses or intrinsics is None:
        raise InputError(
            f"{path} must have 'world_2_cam' (a 4x4 matrix per serial) and "
            f"'intrinsics'; it has {', '.join(map(repr, content)) or 'nothing'}."
        )
    refuse_distortion(path, content)
    world2cam = {s: _read_pose(path, s, poses[s]) for s in poses}
    stated = _read_size(path, content)
    if isinstance(intrinsics, dict):
        missing = [s for s in poses if s not in intrinsics]
        if missing:
            raise InputError(
                f"{path}: 'intrinsics' lacks {', '.join(missing)}, which "
                "'world_2_cam' has. Complete the file."
            )
        Ks = {s: _read_K(path, f"of {s}", intrinsics[s]) for s in poses}
        return Calibration(path, Ks, world2cam, (None, stated) if stated else (None,))
    K = _read_K(path, "of all cameras", intrinsics)
    sizes = (stated,) if stated else (_FULL_SIZE, None)
    return Calibration(path, dict.fromkeys(poses, K), world2cam, sizes)


def intrinsics_size(
    calibration: Calibration, camera_id: str, video_size: tuple[int, int]
) -> tuple[int, int]:
    """The image size (W, H) that a camera's K is meant for.

    Raises:
      InputError: if the file does not say and the principal point does not tell, or is
        outside of the image.
    """
    K = calibration.Ks[camera_id]
    sizes = list(dict.fromkeys(s or video_size for s in calibration.image_sizes))
    place = {size: K[:2, 2] / size for size in sizes}
    near = [s for s in sizes if np.abs(place[s] - 0.5).max() <= _NEAR_CENTRE]
    if len(sizes) > 1 and len(near) == 1:
        return near[0]
    inside = [s for s in sizes if ((place[s] > 0) & (place[s] < 1)).all()]
    if len(sizes) == 1 and inside:
        return sizes[0]
    tried = " or ".join(f"{w}x{h}" for w, h in sizes)
    raise InputError(
        f"{calibration.path}: the principal point ({K[0, 2]:g}, {K[1, 2]:g}) of "
        f"{camera_id} does not tell that the intrinsics are meant for images of "
        f"{tried}. State the size that they are meant for there as 'width' and "
        "'height', in pixels, with fx, fy, cx and cy in such pixels too."
    )


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
        aspect ratio than the images that K is meant for, or their size is not known.
    """
    if camera_id not in calibration.world2cam:
        raise InputError(
            f"camera {camera_id} has videos but is not in {calibration.path}. Add it, "
            f"or leave it out with --capture.ignore-cameras {camera_id}."
        )
    full = np.array(intrinsics_size(calibration, camera_id, video_size), np.float64)
    expected_height = full[1] * video_size[0] / full[0]
    if abs(expected_height - video_size[1]) > 1:
        raise InputError(
            f"the videos are {video_size[0]}x{video_size[1]}, but {calibration.path} "
            f"is for {full[0]:.0f}x{full[1]:.0f}: the aspect ratios differ. State the "
            "size that the intrinsics are meant for there as 'width' and 'height'."
        )
    return _scaled(calibration, camera_id, (int(full[0]), int(full[1])), size)


def camera_as_stated(
    calibration: Calibration,
    camera_id: str,
    video_size: tuple[int, int],
    size: tuple[int, int],
) -> Camera:
    """As `make_camera`, but takes the file at its word: to find out what is wrong.

    Where it allows of several sizes that K may be meant for, the first is taken.
    """
    full = calibration.image_sizes[0] or video_size
    return _scaled(calibration, camera_id, full, size)


def _scaled(
    calibration: Calibration,
    camera_id: str,
    full: tuple[int, int],
    size: tuple[int, int],
) -> Camera:
    # Pixel centres are at +0.5, so this scaling holds for the principal point too.
    factors = np.array(size) / np.array(full, np.float64)
    K = calibration.Ks[camera_id] * np.array([*factors, 1.0])[:, None]
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
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object.")
    return content


def _read_matrix(
    path: Path, what: str, value: Any, shape: tuple[int, int | None]
) -> np.ndarray:
    try:
        matrix = np.array(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        matrix = np.empty((0, 0))
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
    skew = max(K[0, 1], K[1, 0], key=abs)
    if abs(skew) > _MAX_SKEW:
        raise InputError(
            f"{path}: 'intrinsics' {whose} has a skew of {skew:g} pixels; expected 0, "
            "as cameras here have none. Calibrate without skew, or undo it in the "
            "images."
        )
    return K


def _read_size(path: Path, content: dict[str, Any]) -> tuple[int, int] | None:
    """The stated image size (W, H), or None if none is stated."""
    if "width" not in content and "height" not in content:
        return None
    width, height = content.get("width"), content.get("height")
    if type(width) is int and type(height) is int and width > 0 and height > 0:
        return width, height
    raise InputError(
        f"{path}: 'width' and 'height' are {width!r} and {height!r}; expected the "
        "pixels of the images that the intrinsics are meant for."
    )


def refuse_distortion(path: Path, content: dict[str, Any]) -> None:
    """Refuses lens models that would be passed over, wherever they are written.

    Raises:
      InputError: a camera is no pinhole.
    """
    for key, value in content.items():
        if key == "world_2_cam":
            continue
        if _DISTORTION.fullmatch(key.lower()) and any(_numbers(value)):
            raise InputError(
                f"{path}: '{key}' is {str(value)[:120]}; expected none, or zeros: "
                "cameras here are pinholes. Undistort the videos (and clouds stay as "
                "they are), then state zeros."
            )
        if isinstance(value, dict):
            refuse_distortion(path, value)


def _numbers(value: Any) -> Iterator[float]:
    """All numbers in a JSON value; the name of a lens model counts as 1."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, str):
        yield 0.0 if value.lower() in ("", "none", "pinhole") else 1.0
    elif value is not None:
        yield float(value)


def _read_pose(path: Path, serial: str, value: Any) -> np.ndarray:
    pose = _read_matrix(path, f"'world_2_cam' of {serial}", value, (4, 4))
    wanted = (
        "expected a rotation and a translation that take world points to the camera "
        "(OpenCV axes, metres, last row 0 0 0 1)."
    )
    check_pose(f"{path}: 'world_2_cam' of {serial}", pose, wanted)
    return pose


def check_pose(what: str, pose: np.ndarray, wanted: str) -> None:
    """Makes sure that a matrix is a rotation with a translation.

    Args:
      what: It is, for the message.
      pose: Should be [4, 4].
      wanted: What was expected, for the message.

    Raises:
      InputError: it is not.
    """
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        raise InputError(f"{what} is no finite 4x4 matrix; {wanted}")
    if not np.allclose(pose[3], [0, 0, 0, 1], atol=1e-6):
        raise InputError(f"{what} has the last row {pose[3].tolist()}; {wanted}")
    R = pose[:3, :3]
    det = np.linalg.det(R)
    if not np.allclose(R @ R.T, np.eye(3), atol=1e-3):
        lengths = np.linalg.norm(R, axis=1)
        raise InputError(
            f"{what} is not rigid: its rows have the lengths "
            f"{', '.join(f'{n:.4g}' for n in lengths)} and the determinant {det:.4g}; "
            f"{wanted}"
        )
    if det < 0:
        raise InputError(f"{what} is mirrored (determinant {det:.4g}); {wanted}")
