"""Label maps of a whole capture: one file per camera and sequence, resumable."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from npga_jax.core import InputError, Progress, atomic_write
from npga_jax.data import (
    PREPARATION,
    Capture,
    Timestep,
    find_sources,
    is_multiple,
    read_strides,
    record_path,
    segmentation,
)
from npga_jax.preparation.labels import (
    Colors,
    PosedHead,
    hairline_of,
    label_view,
    learn_colors,
    place_head,
)
from npga_jax.preparation.matting import KIND, matte_path
from npga_jax.preparation.raw import LABELS
from npga_jax.preparation.records import (
    begin_record,
    draw_sheet,
    is_own,
    read_record,
    shrink,
    stamps,
    write_record,
)
from npga_jax.preparation.slip import Sight, find_slip, shifted
from npga_jax.tracking import (
    LoadedPrior,
    fit_template,
    load_identity,
    model_name,
    packaged_template,
    pose_template,
)

_KIND = "labels"
_VERSION = 2
"""Of the method; maps of another are made again."""
_LOOKED_AT = 4
"""Frames of a sequence that colours and the head's slip are learned from."""
_FRONTAL = 6
"""Cameras that are asked where the eyes are."""
_OPACITY = 0.6
_COLORS = {
    segmentation.NECK: (90, 90, 255),
    segmentation.FACE: (255, 205, 160),
    segmentation.EARS[0]: (255, 120, 220),
    segmentation.EARS[1]: (255, 120, 220),
    segmentation.EYES[0]: (40, 230, 60),
    segmentation.EYES[1]: (40, 180, 230),
    segmentation.INNER_MOUTH: (230, 30, 40),
    segmentation.HAIR: (140, 80, 20),
}


def files_to_label(capture: Capture, output: Path) -> dict[str, list[str]]:
    """Cameras whose label maps are to be made, by sequence.

    The user's own stay, and so do those that were made of the same codes.

    Args:
      capture: tracked.
      output: folder of the prepared subject.
    """
    lacking: dict[str, list[str]] = {}
    for sequence in capture.sequences:
        timesteps = [t for t in capture.timesteps if t.sequence == sequence]
        if not any(capture.has_driving(t) for t in timesteps):
            continue
        there = find_sources(capture.root, sequence, "labels")
        for camera_id in capture.cameras:
            record = record_path(output, _KIND, sequence, camera_id)
            made = _file_of(output, sequence, camera_id)
            if is_own(there.get(camera_id), made, record):
                continue
            # Of other layouts: their own maps.
            if not record.exists() and capture.has_labels(timesteps[0], camera_id):
                continue
            made_of = _made_of(capture, output, sequence, camera_id)
            strides = read_strides(record)
            if is_multiple(capture.frame_stride, strides):
                made_of["stride"] = strides[0]  # Those that are used are among them.
            if read_record(record, made_of, made) is None:
                lacking.setdefault(sequence, []).append(camera_id)
    return lacking


def label_capture(
    capture: Capture, prior: LoadedPrior, output: Path, *, progress: bool = True
) -> int:
    """Makes the label maps that lack, and a sheet with one frame of each.

    Args:
      capture: tracked with the prior, with mattes; maps have the size of its images.
      prior: the head model that its codes are of.
      output: folder of the prepared subject.
      progress: whether to say on stderr how far it is.

    Returns:
      How many files were made.

    Raises:
      InputError: there are no mattes, the codes are not the head model's, or a file
        cannot be written.
    """
    lacking = files_to_label(capture, output)
    if not lacking:
        return 0
    if not capture.has_mattes:
        raise InputError(
            f"label maps of {capture.subject} need mattes (alpha_maps), which say "
            "where hair and torso end. Make them first: leave out --steps."
        )
    if capture.driving_model != model_name(prior):
        raise InputError(
            f"label maps of {capture.subject} need codes of the head model "
            f"'{model_name(prior)}'; there are those of '{capture.driving_model}'. "
            "Track the head with experiments/track.py, and name its codes with "
            "--capture.driving nphm."
        )
    total = sum(len(cameras) for cameras in lacking.values())
    done = 0
    with Progress("labels", total, unit="files", show=progress) as say:
        for sequence, cameras in lacking.items():
            heads = _posed_heads(capture, prior, sequence)
            colors = _colors_of(capture, heads)
            if colors is not None:
                slip = find_slip(_sights_of(capture, heads), colors.skin)
                heads = {t: shifted(head, slip) for t, head in heads.items()}
            for camera_id in cameras:
                _label_video(capture, sequence, heads, colors, camera_id, output)
                done += 1
                say(done, f"{sequence} {camera_id}")
    rows = {
        s: [record_path(output, _KIND, s, c) for c in capture.cameras]
        for s in capture.sequences
    }
    draw_sheet(rows, sheet_path(output))
    return total


def sheet_path(output: Path) -> Path:
    """The picture of all label maps."""
    return output / PREPARATION / "labels.png"


def _posed_heads(
    capture: Capture, prior: LoadedPrior, sequence: str
) -> dict[Timestep, PosedHead]:
    """The template in every frame of a sequence that has codes."""
    template = packaged_template()
    hairline = hairline_of(template)
    geo = load_identity(capture.driving_paths[sequence], prior)
    canonical = fit_template(template, prior.model, geo)
    heads = {}
    for timestep in capture.timesteps:
        if timestep.sequence != sequence or not capture.has_driving(timestep):
            continue
        driving = capture.driving(timestep)
        posed = pose_template(template, canonical, prior.model, geo, driving.expr)
        pose = driving.world_from_head
        heads[timestep] = place_head(template, hairline, posed, pose)
    return heads


def _some(timesteps: Sequence[Timestep], count: int) -> list[Timestep]:
    """A few of them, spread evenly."""
    which = np.linspace(0, len(timesteps) - 1, count).round().astype(int)
    return [timesteps[i] for i in np.unique(which)] if timesteps else []


def _colors_of(capture: Capture, heads: dict[Timestep, PosedHead]) -> Colors | None:
    chosen = _some([t for t in heads if capture.has_points(t)], _LOOKED_AT)
    pairs = [(capture.points(t), heads[t]) for t in chosen]
    known = [(cloud, head) for cloud, head in pairs if cloud is not None]
    return learn_colors([cloud for cloud, _ in known], [head for _, head in known])


def _sights_of(capture: Capture, heads: dict[Timestep, PosedHead]) -> list[Sight]:
    """Some frames as the cameras see them that are most before the face."""
    sights = []
    for timestep in _some(list(heads), _LOOKED_AT):
        forward = heads[timestep].head_from_world[2, :3]
        cameras = [capture.camera(timestep, c) for c in capture.cameras]
        ways = [camera.world2cam[2, :3] for camera in cameras]
        order = np.argsort([float(way @ forward) for way in ways])
        for i in order[:_FRONTAL]:
            image = capture.rgb(timestep, capture.cameras[i])
            sights.append(Sight(heads[timestep], image, cameras[i]))
    return sights


def _label_video(
    capture: Capture,
    sequence: str,
    heads: dict[Timestep, PosedHead],
    colors: Colors | None,
    camera_id: str,
    output: Path,
) -> None:
    """Writes the maps of one camera; frames without a code repeat the one before."""
    maps: dict[int, np.ndarray] = {}
    tiles = []
    for timestep, head in heads.items():
        image = capture.rgb(timestep, camera_id)
        matte = capture.alpha(timestep, camera_id)
        if matte is None:
            continue
        camera = capture.camera(timestep, camera_id)
        cloud = capture.points(timestep)
        labels = label_view(head, colors, cloud, image, matte, camera)
        maps[timestep.frame_id] = labels
        tiles.append(_over_image(image, labels))
    if not maps:
        return
    path = _file_of(output, sequence, camera_id)
    shown = _rows_of(capture.map_frames(sequence), sorted(maps))
    record = record_path(output, _KIND, sequence, camera_id)
    made_of = _made_of(capture, output, sequence, camera_id)
    begin_record(record, made_of)
    with atomic_write(path) as file:
        np.savez_compressed(file, labels=np.stack([maps[f] for f in shown]))
    write_record(record, made_of, [], tiles[len(tiles) // 2])


def _rows_of(frames: Sequence[int], known: Sequence[int]) -> list[int]:
    """For each frame, itself or the last known before it; else the first known."""
    at = np.searchsorted(known, frames, side="right") - 1
    return [known[max(i, 0)] for i in at]


def _over_image(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    colors = np.zeros((256, 3))
    for label, color in _COLORS.items():
        colors[label] = color
    painted = (1 - _OPACITY) * image + _OPACITY * colors[labels]
    return shrink(np.where(labels[..., None] > 0, painted, image).astype(np.uint8))


def _file_of(output: Path, sequence: str, camera_id: str) -> Path:
    return output / "sequences" / sequence / LABELS / f"cam_{camera_id}.npz"


def _made_of(
    capture: Capture, output: Path, sequence: str, camera_id: str
) -> dict[str, Any]:
    """What decides how label maps look."""
    # The record of mattes of ours changes with them; those of the user are given.
    record = record_path(output, KIND, sequence, camera_id)
    matte = find_sources(capture.root, sequence, "alpha").get(camera_id)
    is_given = is_own(matte, matte_path(output, sequence, camera_id), record)
    paths = {
        "codes": capture.driving_paths.get(sequence),
        "matte": None if is_given else record,
    }
    return {
        "version": _VERSION,
        "size": [capture.width, capture.height],
        "stride": capture.frame_stride,
        **stamps({name: p for name, p in paths.items() if p and p.exists()}),
    }
