"""Reads the release of DiffusionAvatars: JPEGs by moment, FLAME and NPHM codes.

Read off the published code: calibration for the full images, half-size JPEGs, an
affine colour correction per sequence and camera, FLAME turned as a whole by intrinsic
XYZ Euler angles with a scale, and NPHM in the same place at four times FLAME's size.
Its NPHM codes (200 numbers) are of networks that were not released: they drive, and F
cannot be distilled from them.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from npga_jax.core import InputError, load_npz
from npga_jax.data import flame
from npga_jax.data.calibration import refuse_distortion
from npga_jax.data.driving import DrivingFile, driving_from_arrays
from npga_jax.data.image_set import (
    ImageSet,
    ImageView,
    OwnCodes,
    ViewKey,
    intrinsics,
    read_json,
)
from npga_jax.data.settings import CaptureConfig

FPS = 73.0
"""Of the rig; every third frame was released."""

NPHM = "nphm200"
"""What --capture.driving calls the release's NPHM codes."""

TESTS: Mapping[int, tuple[str, str]] = {
    18: ("EXP-5", "EMO-3"),
    37: ("EMO-1", "EMO-2"),
    55: ("EXP-3", "SEN-04"),
    124: ("EMO-1", "EMO-4"),
    145: ("EMO-1", "EXP-9"),
    210: ("EMO-4", "EXP-3"),
    251: ("EMO-1", "EXP-2"),
    264: ("EMO-4", "EXP-2"),
}
"""Sequences that the release tests on, by subject."""

_FRAME = re.compile(r"frame_(\d+)")
_IMAGE = re.compile(r"cam_(.+)\.(jpg|jpeg|png)", re.IGNORECASE)
_IMAGES = ("images-2x", "images")
_TRACKING = Path("annotations") / "tracking"
_WIDTHS = {
    "rotation": 3,
    "translation": 3,
    "scale": 0,
    "expression": 0,
    "jaw": 3,
    "neck": 3,
    "eyes": 6,
}
_MAX_BYTES = 1 << 30

Rig = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""K [3, 3] of the full image and world-to-camera [4, 4], by serial."""


def find_diffusion_avatars(folder: Path, cfg: CaptureConfig) -> ImageSet:
    """Looks through a subject of the release.

    Args:
      folder: The subject's.
      cfg: Not needed.

    Raises:
      InputError: a file is missing or damaged.
    """
    rig, size = _read_rig(folder / "calibration")
    views: dict[ViewKey, ImageView] = {}
    frames: dict[str, list[int]] = {}
    for place in sorted((folder / "sequences").glob("*/timesteps")):
        if not place.is_dir():
            continue
        sequence = place.parent.name
        colors = _read_colors(place.parent, rig)
        for moment in sorted(place.iterdir()):
            if not (match := _FRAME.fullmatch(moment.name)):
                continue
            number = int(match[1])
            frames.setdefault(sequence, []).append(number)
            for camera, view in _find_views(moment, rig, size, colors).items():
                views[sequence, number, camera] = view
    if not views:
        raise InputError(
            f"{folder} has no images: expected "
            "sequences/SEQ/timesteps/frame_00000/images-2x/cam_SERIAL.jpg. Unpack the "
            "release again."
        )
    frames = {sequence: sorted(numbers) for sequence, numbers in frames.items()}
    tests = _tests_of(folder, tuple(frames))
    notes = []
    if len(tests) > 1:
        notes.append(
            f"The release also tests on {', '.join(tests[1:])}: leave it out with "
            f"--capture.ignore-sequences {' '.join(tests[1:])}, or hold it out."
        )
    return ImageSet(
        folder=folder,
        views=views,
        fps=FPS,
        spacing=_spacing(frames),
        codes=_find_codes(folder, frames),
        held_out_sequence=tests[0] if tests else "",
        notes=tuple(notes),
    )


def _read_rig(folder: Path) -> tuple[Rig, tuple[int, int]]:
    """Cameras by serial, and the image size (W, H) that their K is meant for."""
    result, config = folder / "calibration_result.json", folder / "config.json"
    params = read_json(result, "DiffusionAvatars' calibration").get("params_result")
    settings = read_json(config, "DiffusionAvatars' calibration settings")
    try:
        if not isinstance(params, dict):
            raise TypeError("'params_result' is no object")
        refuse_distortion(result, params)
        serials = [str(s) for s in settings["serials"]]
        size = int(settings["image_size"]["w"]), int(settings["image_size"]["h"])
        turns = np.array(params["rs"], np.float64).reshape(len(serials), 3)
        moves = np.array(params["ts"], np.float64).reshape(len(serials), 3)
        lenses = params["intrinsics"]
        lenses = [lenses] if isinstance(lenses, dict) else list(lenses)
        Ks = [intrinsics(*(float(x[k]) for k in ("fx", "fy", "cx", "cy")))
              for x in lenses]  # fmt: skip
        if len(Ks) == 1:
            Ks *= len(serials)
        poses = np.tile(np.eye(4), (len(serials), 1, 1))
        poses[:, :3, :3] = Rotation.from_rotvec(turns).as_matrix()
        poses[:, :3, 3] = moves
        if not np.isfinite(poses).all() or not np.isfinite(Ks).all() or min(size) < 1:
            raise ValueError("numbers that are not finite")
        return dict(zip(serials, zip(Ks, poses, strict=True), strict=True)), size
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{result} and {config} do not go together ({error}): expected "
            "params_result with rs, ts and intrinsics, and serials with image_size, "
            "for as many cameras. Unpack the release again."
        ) from error


def _find_views(
    moment: Path,
    rig: Rig,
    size: tuple[int, int],
    colors: Mapping[str, np.ndarray],
) -> dict[str, ImageView]:
    """The images of one moment, by camera, in the calibration's order."""
    place = next((moment / n for n in _IMAGES if (moment / n).is_dir()), None)
    images = {}
    for path in sorted(place.iterdir()) if place else []:
        if match := _IMAGE.fullmatch(path.name):
            images[match[1]] = path
    mattes, labels = moment / "alpha_map", moment / "facer_segmentation_masks"
    mattes = mattes if mattes.is_dir() else None
    maps = {p.name: p for p in labels.iterdir()} if labels.is_dir() else {}
    return {
        camera: ImageView(
            images[camera],
            *lens,
            size,
            mattes and mattes / f"cam_{camera}.png",
            maps.get(f"segmentation_cam_{camera}.png"),
            colors.get(camera),
        )
        for camera, lens in rig.items()
        if camera in images
    }


def _read_colors(sequence: Path, rig: Rig) -> dict[str, np.ndarray]:
    """The affine colour correction [3, 4] of each camera that has one.

    Colours are rows there: rgb @ A + b.
    """
    found = {}
    for camera in rig:
        path = sequence / "annotations" / "color_correction" / f"{camera}.npy"
        if not path.is_file():
            continue
        try:
            matrix = np.load(path, allow_pickle=False).astype(np.float64)
        except (OSError, ValueError, EOFError, AttributeError, SyntaxError) as error:
            raise InputError(
                f"{path} cannot be read ({error}). Unpack the release again."
            ) from error
        if matrix.shape not in ((3, 4), (4, 4)) or not np.isfinite(matrix).all():
            raise InputError(
                f"{path} is {matrix.shape}; expected a finite 3x4 or 4x4 matrix. "
                "Unpack the release again."
            )
        found[camera] = matrix[:3]
    return found


def _spacing(frames: Mapping[str, Sequence[int]]) -> int:
    """Every how many frames of the video one was released."""
    apart = [np.diff(numbers) for numbers in frames.values() if len(numbers) > 1]
    return int(np.gcd.reduce(np.concatenate(apart))) if apart else 1


def _tests_of(folder: Path, sequences: Sequence[str]) -> list[str]:
    """The sequences that the release tests on, as far as they are there."""
    number = int(folder.name) if folder.name.isdigit() else -1
    return [
        sequence
        for prefix in TESTS.get(number, ())
        for sequence in sequences
        if sequence == prefix or sequence.startswith(f"{prefix}-")
    ]


def _find_codes(
    folder: Path, frames: Mapping[str, Sequence[int]]
) -> dict[str, OwnCodes]:
    """The codes that all sequences have."""
    tracked = {s: folder / "sequences" / s / _TRACKING for s in frames}
    codes = {}
    files = {
        s: place / "FLAME2023_v2" / "tracked_flame_params.npz"
        for s, place in tracked.items()
    }
    if all(path.is_file() for path in files.values()):
        read = partial(_read_flame, files, frames)
        codes[flame.NAME] = OwnCodes(next(iter(files.values())), read)
    places = {
        s: next(iter(sorted(place.glob("NPHM_temp_wNeck*"))), None)
        for s, place in tracked.items()
    }
    found = {s: place for s, place in places.items() if place is not None}
    if len(found) == len(frames) and flame.NAME in codes:  # Its poses are FLAME's.
        read = partial(_read_nphm, found, files, frames)
        codes[NPHM] = OwnCodes(next(iter(found.values())), read)
    return codes


def _flame_rows(
    path: Path, there: Sequence[int], wanted: Sequence[int]
) -> dict[str, np.ndarray]:
    """FLAME's parameters: row i is of the i-th frame that there is."""
    arrays = load_npz(
        path, "FLAME's parameters", max_bytes=_MAX_BYTES, names=tuple(_WIDTHS)
    )
    if "scale" in arrays and arrays["scale"].shape[:1] == (1,):
        arrays["scale"] = np.repeat(arrays["scale"].reshape(1, -1), len(there), axis=0)
    rows = np.searchsorted(there, wanted)
    columns = flame.columns(path, arrays, _WIDTHS, len(there))
    found = {key: array[rows] for key, array in columns.items()}
    if np.ptp(found["scale"], axis=1).max(initial=0) > 1e-4:
        raise InputError(
            f"{path}: 'scale' differs between axes; expected a uniform one. Unpack "
            "the release again."
        )
    found["scale"] = found["scale"].mean(axis=1)
    return found


def _read_flame(
    files: Mapping[str, Path],
    frames: Mapping[str, Sequence[int]],
    sequence: str,
    wanted: Sequence[int],
) -> DrivingFile:
    path = files[sequence]
    found = _flame_rows(path, frames[sequence], wanted)
    bent = flame.turn_about(
        flame.NECK_JOINT, Rotation.from_rotvec(found["neck"]).as_matrix()
    )
    outside = flame.poses_outside(
        found["rotation"], found["scale"], found["translation"]
    )
    return flame.flame_driving(
        path,
        np.array(wanted),
        expr=found["expression"],
        jaw=found["jaw"],
        eyes=found["eyes"],
        neck=found["neck"],
        world_from_head=outside @ bent,
    )


def _read_nphm(
    places: Mapping[str, Path],
    files: Mapping[str, Path],
    frames: Mapping[str, Sequence[int]],
    sequence: str,
    wanted: Sequence[int],
) -> DrivingFile:
    """NPHM's codes; its head is FLAME's before that is turned, times four."""
    place = places[sequence]
    paths = {f: place / f"{f:05d}_ex_code.npz" for f in wanted}
    there = [f for f in wanted if paths[f].is_file()]
    if not there:
        raise InputError(
            f"{place} has no code of a frame that is used, like "
            f"{next(iter(paths.values())).name}. Unpack the release again, or use "
            f"--capture.driving {flame.NAME}."
        )
    codes = []
    for frame in there:
        arrays = load_npz(
            paths[frame], "an NPHM code", max_bytes=_MAX_BYTES, names=("arr_0",)
        )
        codes.append(arrays.get("arr_0", np.empty(0)).reshape(-1))
    if len({len(code) for code in codes}) > 1 or not len(codes[0]):
        raise InputError(
            f"{place}: codes are not of one length. Unpack the release again."
        )
    found = _flame_rows(files[sequence], frames[sequence], there)
    poses = flame.poses_outside(found["rotation"], found["scale"], found["translation"])
    return driving_from_arrays(
        place,
        {
            "frame_id": np.array(there),
            "expr": np.stack(codes).astype(np.float32),
            "world_from_head": poses,  # Of FLAME's metres: NPHM's unit divided by 4.
            "model": np.array(NPHM),
            "head_unit": np.array("m"),
        },
    )
