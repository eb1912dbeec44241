"""Reads VHAP's exports, which are GaussianAvatars' input: NeRF-style JSON, PNG, FLAME.

Read off the published code: `cy` counts from the bottom edge, and each sequence lies in
a world of its own, whose origin is its mean FLAME translation. Cameras are therefore
kept by sequence and frame. Images are on white below a line through the neck already;
`fg_masks` are their mattes.
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from npga_jax.core import InputError, load_npz
from npga_jax.data.driving import DrivingFile
from npga_jax.data.flame import NAME, columns, flame_driving, poses_within
from npga_jax.data.image_set import ImageSet, ImageView, OwnCodes, ViewKey, intrinsics
from npga_jax.data.layouts import TRANSFORMS, vhap_exports
from npga_jax.data.settings import CaptureConfig
from npga_jax.data.transforms import (
    Frame,
    focal_lengths,
    image_size,
    read_frames,
    world_to_camera,
)

FPS = 25.0
"""Of the frames that VHAP's preprocessing takes from a video."""

_EXPORT_NAME = re.compile(r"[^_]+_(.+?)_(?:v\d+|whiteBg|DS\d).*")
_IMAGE_NAME = re.compile(r"(\d+)_.+")
_KEYS = {
    "translation": 3,
    "rotation": 3,
    "neck_pose": 3,
    "jaw_pose": 3,
    "eyes_pose": 6,
    "expr": 0,
}
_MAX_BYTES = 1 << 26


def find_vhap(folder: Path, cfg: CaptureConfig) -> ImageSet:
    """Looks through an export, a union of exports, or a folder of some.

    A sequence whose last part is its own test is cut in two: SEQ and SEQ_test.

    Args:
      folder: The subject's.
      cfg: Has the edge that `cy` counts from.

    Raises:
      InputError: a file is missing or damaged, or two exports are of one sequence.
    """
    exports, notes = _choose_exports(folder)
    frames = [f for export in exports for f in _read_export(export)]
    frames.sort(key=lambda entry: entry[0].number_of("camera_index"))
    images = [frame.file("file_path") for frame, _ in frames]
    sequences = _name_sequences(folder, frames, images)
    tested = [sequences[i] for i, (_, role) in enumerate(frames) if role == "test"]
    views: dict[ViewKey, ImageView] = {}
    params: dict[tuple[str, int], Path] = {}
    poses: dict[str, np.ndarray] = {}
    offset = 0.0
    validated = ""
    for (frame, role), image, sequence in zip(frames, images, sequences, strict=True):
        match = _IMAGE_NAME.fullmatch(image.stem)
        number = int(match[1]) if match else int(frame.number_of("timestep_index"))
        camera = str(frame.values.get("camera_id") or frame.get("camera_index"))
        key = (sequence, number, camera)
        view = _view(frame, image, cfg, poses)
        first = views.setdefault(key, view)
        if first.path != view.path:
            raise InputError(
                f"{first.path} and {view.path} are both camera {camera} at frame "
                f"{number} of {sequence}: sequences overlap. Leave one of the exports "
                "out, or give the one to read as --subject."
            )
        offset = max(offset, abs(2 * view.K[1, 2] - view.size[1]))
        validated = camera if role == "val" else validated
        is_new = (sequence, number) not in params
        if is_new and "flame_param_path" in frame.values:
            params[sequence, number] = frame.file("flame_param_path")
    edge, other = ("bottom", "top") if cfg.principal_point == "bottom" else (
        "top", "bottom")  # fmt: skip
    notes.append(
        f"cy counts from the {edge} edge (--capture.principal-point {other} is the "
        f"other way); what that changes, |2 cy - h|, is at most {offset:.2f} pixels of "
        "the exported images."
    )
    others = sorted(set(tested[1:]) - set(tested[:1]))
    if others:
        notes.append(
            f"{', '.join(others)} are tests of the export too: leave them out with "
            f"--capture.ignore-sequences {' '.join(others)}, or hold them out."
        )
    codes = OwnCodes(exports[0] / "flame_param", partial(_read_codes, params))
    return ImageSet(
        folder=folder,
        views=views,
        fps=FPS,
        codes={NAME: codes} if params else {},
        held_out_sequence=tested[0] if tested else "",
        held_out_camera=validated,
        notes=tuple(notes),
    )


def _choose_exports(folder: Path) -> tuple[tuple[Path, ...], list[str]]:
    """The exports to read: a union reads those that it is made of."""
    exports = vhap_exports(folder)
    if not exports:
        raise InputError(
            f"{folder} holds no export of VHAP: expected transforms_train.json (or "
            "transforms.json) whose frames have camera_index, or folders with such a "
            "file. Give the export's folder as --subject."
        )
    unions = [e for e in exports if e.name.upper().startswith("UNION")]
    if len(unions) > 1:
        raise InputError(
            f"{folder} holds several unions ({', '.join(u.name for u in unions)}). "
            f"Give one as --subject, with --data-root {folder}."
        )
    if unions and len(exports) > 1:
        note = f"Of the exports, {unions[0].name} and what it is made of are used."
        return (unions[0],), [note]
    return exports, []


def _read_export(export: Path) -> list[tuple[Frame, str]]:
    """All frames of an export, and the part that each belongs to ("" for none)."""
    splits = [n for n in TRANSFORMS[:-1] if (export / n).is_file()]
    found = []
    for name in splits or TRANSFORMS[-1:]:
        role = Path(name).stem.partition("_")[2]
        found += [(frame, role) for frame in read_frames(export / name)]
    return found


def _name_sequences(
    folder: Path, frames: Sequence[tuple[Frame, str]], images: Sequence[Path]
) -> list[str]:
    """The sequence of each frame, by the export that its image lies in."""
    names: dict[Path, str] = {}
    taken: dict[str, Path] = {}
    found, moments = [], {}
    for (frame, role), path in zip(frames, images, strict=True):
        place = names.get(path.parent)
        if place is None:
            export = path.parent.parent.resolve()
            match = _EXPORT_NAME.fullmatch(export.name)
            place = match[1] if match else export.name
            if taken.setdefault(place, export) != export:
                raise InputError(
                    f"{taken[place]} and {export} are both of sequence {place}. Leave "
                    f"one of them out, or give the one to read as --subject, with "
                    f"--data-root {folder}."
                )
            names[path.parent] = place
        found.append(place)
        time = frame.number_of("timestep_index")
        moments.setdefault(place, {}).setdefault(time, set()).add(role == "test")
    cut = {
        place
        for place, times in moments.items()
        if {True} in times.values() and {False} in times.values()
    }
    return [
        f"{place}_test" if role == "test" and place in cut else place
        for (_, role), place in zip(frames, found, strict=True)
    ]


def _view(
    frame: Frame, image: Path, cfg: CaptureConfig, poses: dict[str, np.ndarray]
) -> ImageView:
    """An image and its camera; `poses` holds those that came before, by their text."""
    text = str(frame.get("transform_matrix"))
    if text not in poses:
        poses[text] = world_to_camera(frame)
    size = image_size(frame)
    cy = frame.number_of("cy")
    if cfg.principal_point == "bottom":
        cy = size[1] - cy
    K = intrinsics(*focal_lengths(frame, size), frame.number_of("cx"), cy)
    has_mask = frame.values.get("fg_mask_path") is not None
    matte = frame.file("fg_mask_path") if has_mask else None
    return ImageView(image, K, poses[text], size, matte)


def _read_codes(
    params: dict[tuple[str, int], Path], sequence: str, frames: Sequence[int]
) -> DrivingFile:
    """FLAME's parameters of some frames: a file each."""
    there = [f for f in frames if (sequence, f) in params]
    if not there:
        raise InputError(
            f"no frame of {sequence} has a flame_param_path. Use codes of the head "
            "tracker with --capture.driving nphm."
        )
    rows = []
    for frame in there:
        path = params[sequence, frame]
        arrays = load_npz(path, "FLAME's parameters", max_bytes=_MAX_BYTES, names=_KEYS)
        rows.append(columns(path, arrays, _KEYS, 1))
    if len({row["expr"].shape for row in rows}) > 1:
        raise InputError(
            f"{params[sequence, there[0]].parent}: 'expr' is not of one length in all "
            "frames. Export it again."
        )
    stacked = {key: np.concatenate([row[key] for row in rows]) for key in _KEYS}
    return flame_driving(
        params[sequence, there[0]].parent,
        np.array(there),
        expr=stacked["expr"],
        jaw=stacked["jaw_pose"],
        eyes=stacked["eyes_pose"],
        neck=stacked["neck_pose"],
        world_from_head=poses_within(
            stacked["rotation"], stacked["neck_pose"], stacked["translation"]
        ),
    )
