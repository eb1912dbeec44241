"""Reads COLMAP's models of one moment: cameras and images, as text or binary.

Poses are world-to-camera with OpenCV's axes, and the first pixel's centre is at 0.5.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from npga_jax.core import InputError
from npga_jax.data.image_set import ImageSet, ImageView, intrinsics
from npga_jax.data.layouts import colmap_model
from npga_jax.data.moment import moment_set
from npga_jax.data.nerfstudio import camera_name
from npga_jax.data.settings import CaptureConfig

_MODELS = (
    ("SIMPLE_PINHOLE", 3),
    ("PINHOLE", 4),
    ("SIMPLE_RADIAL", 4),
    ("RADIAL", 5),
    ("OPENCV", 8),
    ("OPENCV_FISHEYE", 8),
    ("FULL_OPENCV", 12),
    ("FOV", 5),
    ("SIMPLE_RADIAL_FISHEYE", 4),
    ("RADIAL_FISHEYE", 5),
    ("THIN_PRISM_FISHEYE", 12),
)
"""Lens models by COLMAP's number, and how many parameters each has."""

_NUM_PINHOLE = {
    "SIMPLE_PINHOLE": 3,
    "PINHOLE": 4,
    "SIMPLE_RADIAL": 3,
    "RADIAL": 3,
    "OPENCV": 4,
    "FULL_OPENCV": 4,
}
"""Models that are pinholes where all but their first parameters are zero."""


class _Lens(NamedTuple):
    K: np.ndarray
    size: tuple[int, int]


class _Picture(NamedTuple):
    name: str
    camera: int
    world2cam: np.ndarray


def find_colmap(folder: Path, cfg: CaptureConfig) -> ImageSet:
    """Looks through a folder with a sparse model and images.

    Its sparse points are not used: stereo makes clouds that end with the person.

    Args:
      folder: The subject's.
      cfg: Has the unit of the world.

    Raises:
      InputError: a file is missing or damaged, or lenses distort.
    """
    model = colmap_model(folder)
    if model is None:
        raise InputError(
            f"{folder} holds no model of COLMAP: expected sparse/0/cameras.txt (or "
            ".bin) and images.txt. Give the folder around sparse/ as --subject."
        )
    suffix = ".txt" if (model / "cameras.txt").is_file() else ".bin"
    read = (_text_lenses, _text_pictures) if suffix == ".txt" else (
        _binary_lenses, _binary_pictures)  # fmt: skip
    lenses = _attempt(read[0], model / f"cameras{suffix}")
    pictures = _attempt(read[1], model / f"images{suffix}")
    if not pictures:
        raise InputError(f"{model / f'images{suffix}'} has no image. Export it again.")
    views: dict[str, ImageView] = {}
    for picture in pictures:
        if picture.camera not in lenses:
            raise InputError(
                f"{model / f'images{suffix}'}: {picture.name} is of camera "
                f"{picture.camera}, which cameras{suffix} lacks. Export both again."
            )
        name = camera_name(Path(picture.name).stem)
        if name in views:
            name = str(Path(picture.name).with_suffix("")).replace("/", "_")
        if name in views:
            raise InputError(
                f"{model / f'images{suffix}'}: two images are called {picture.name}; "
                "expected one for each camera of one moment."
            )
        lens = lenses[picture.camera]
        path = folder / "images" / picture.name
        matte = _find_mask(folder, picture.name)
        views[name] = ImageView(path, lens.K, picture.world2cam, lens.size, matte)
    return moment_set(
        folder, dict(sorted(views.items())), unit=cfg.world_unit, notes=()
    )


def _find_mask(folder: Path, name: str) -> Path | None:
    """The mask of an image: masks/NAME.png, or with the image's suffix replaced."""
    path = folder / "masks" / name
    for place in (path.with_name(f"{path.name}.png"), path.with_suffix(".png")):
        if place.is_file():
            return place
    return None


def _attempt(read, path: Path):
    """Reads a file; whatever is wrong with its bytes is one sentence."""
    try:
        return read(path)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(
            f"there is no {path}: expected COLMAP's model. Export it again."
        ) from error
    except (OSError, ValueError, IndexError, struct.error, OverflowError) as error:
        raise InputError(
            f"{path} cannot be read as COLMAP's model ({error}): it is cut short or "
            "damaged. Export it again."
        ) from error


def _lens(path: Path, number: int, model: str, size: tuple[int, int], params) -> _Lens:
    used = _NUM_PINHOLE.get(model, 0)
    if not used or any(params[used:]):
        raise InputError(
            f"{path}: camera {number} is of model {model} with the parameters "
            f"{', '.join(f'{p:g}' for p in params)}; expected PINHOLE, or no "
            "distortion. Undistort the images first (colmap image_undistorter)."
        )
    if len(params) < used or not np.isfinite(params).all() or min(size) < 1:
        raise ValueError(f"camera {number} is damaged")
    f, *rest = params[:used]
    return _Lens(intrinsics(f, *(rest if used == 4 else (f, *rest))), size)


def _pose(quaternion, translation) -> np.ndarray:
    """World-to-camera from a quaternion (w, x, y, z) and a translation."""
    w, x, y, z = quaternion
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat([x, y, z, w]).as_matrix()
    pose[:3, 3] = translation
    if not np.isfinite(pose).all():
        raise ValueError("a pose is not finite")
    return pose


def _lines(path: Path) -> Iterator[str]:
    """Lines that are no comments; empty ones count, as an image's points may be."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            yield line


def _text_lenses(path: Path) -> dict[int, _Lens]:
    found = {}
    for line in _lines(path):
        if words := line.split():
            number, model, size = int(words[0]), words[1], words[2:4]
            params = [float(w) for w in words[4:]]
            width, height = map(int, size)
            found[number] = _lens(path, number, model, (width, height), params)
    return found


def _text_pictures(path: Path) -> list[_Picture]:
    found = []
    for line in list(_lines(path))[::2]:  # Every second one lists an image's points.
        if not line.strip():
            continue
        words = line.split(maxsplit=9)
        numbers = [float(w) for w in words[1:8]]
        pose = _pose(numbers[:4], numbers[4:])
        found.append(_Picture(words[9].strip(), int(words[8]), pose))
    return found


def _binary_lenses(path: Path) -> dict[int, _Lens]:
    data, found = path.read_bytes(), {}
    (count,), at = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        number, kind, width, height = struct.unpack_from("<iiQQ", data, at)
        model, num_params = _MODELS[kind] if 0 <= kind < len(_MODELS) else ("?", 0)
        params = struct.unpack_from(f"<{num_params}d", data, at + 24)
        found[number] = _lens(path, number, model, (width, height), params)
        at += 24 + 8 * num_params
    return found


def _binary_pictures(path: Path) -> list[_Picture]:
    data, found = path.read_bytes(), []
    (count,), at = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        _, *numbers, camera = struct.unpack_from("<i7di", data, at)
        end = data.index(b"\0", at + 64)
        name = data[at + 64 : end].decode("utf-8")
        (num_points,) = struct.unpack_from("<Q", data, end + 1)
        at = end + 9 + 24 * num_points
        if at > len(data):
            raise ValueError(f"it ends after {len(data)} bytes")
        found.append(_Picture(name, camera, _pose(numbers[:4], numbers[4:])))
    return found
