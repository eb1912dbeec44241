"""Landmarks of a whole capture: one file per sequence, resumable."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from npga_jax.core import Progress, atomic_write
from npga_jax.data import LANDMARKS, NUM_LANDMARKS, PREPARATION, Capture, Timestep
from npga_jax.preparation.landmarks import triangulate_face
from npga_jax.preparation.records import (
    begin_record,
    calibration_digest,
    draw_sheet,
    is_own,
    read_record,
    sequence_record,
    shrink,
    stamps,
    write_record,
)
from npga_jax.tracking import Detector, open_detector

_KIND = "landmarks"
_VERSION = 1
"""Of the method; landmarks of another are made again."""
_FEWEST_VIEWS = 2
_COLOR = (20, 160, 20)


class FaceCheck(NamedTuple):
    """What was found at one moment."""

    frame_id: int
    views: int  # cameras in whose images a face was found
    cameras: int  # of all
    known: int  # landmarks that cameras agree on


class _Found(NamedTuple):
    """Of one camera at one moment."""

    points: np.ndarray  # [478, 2] shares of width and height; zero where not seen
    seen: bool


def sequences_without_landmarks(
    capture: Capture, output: Path, model: Path
) -> list[str]:
    """Sequences whose landmarks are to be found.

    The user's own stay, and so do those that were found by the same model.

    Args:
      capture: as opened.
      output: folder of the prepared subject.
      model: of the face landmarker.
    """
    lacking = []
    for sequence in capture.sequences:
        record = sequence_record(output, _KIND, sequence)
        made = _file_of(output, sequence)
        if is_own(capture.landmark_paths.get(sequence), made, record):
            continue
        if read_record(record, _made_of(capture, sequence, model), made) is None:
            lacking.append(sequence)
    return lacking


def find_capture_landmarks(
    capture: Capture,
    sequences: Sequence[str],
    output: Path,
    model: Path,
    *,
    progress: bool = True,
) -> dict[str, list[FaceCheck]]:
    """Finds the landmarks of some sequences, and draws a sheet of all that are there.

    Args:
      capture: calibrated; its images are used as they were opened.
      sequences: which to look at.
      output: folder of the prepared subject.
      model: of the face landmarker.
      progress: whether to say on stderr how far it is.

    Returns:
      What was found, by sequence and frame. Sequences that an earlier call finished
      keep their files.

    Raises:
      InputError: the model cannot be used, mediapipe is missing, or a file cannot be
        read or written.
    """
    frames = {s: [t for t in capture.timesteps if t.sequence == s] for s in sequences}
    total = sum(len(timesteps) for timesteps in frames.values())
    found: dict[str, list[FaceCheck]] = {}
    done = 0
    with (
        open_detector(model) as detector,
        Progress("landmarks", total, unit="frames", show=progress) as say,
    ):
        for sequence, timesteps in frames.items():
            rows = []
            for timestep in timesteps:
                rows.append(_find_frame(capture, timestep, detector))
                done += 1
                say(done, sequence)
            found[sequence] = _write(capture, timesteps, rows, output, model)
    draw_sheet(
        {s: [sequence_record(output, _KIND, s)] for s in capture.sequences},
        landmarks_sheet(output),
    )
    return found


def landmarks_sheet(output: Path) -> Path:
    """The picture of all landmarks."""
    return output / PREPARATION / "landmarks.png"


def wrong_faces(checks: Sequence[FaceCheck]) -> dict[int, str]:
    """Frames of a sequence whose landmarks look wrong, and why."""
    wrong = {}
    for check in checks:
        if check.views < _FEWEST_VIEWS:
            views = "no camera" if check.views == 0 else "one camera only"
            wrong[check.frame_id] = f"a face is found in {views} of {check.cameras}"
        elif 2 * check.known < NUM_LANDMARKS:
            wrong[check.frame_id] = (
                f"cameras agree on {check.known} of {NUM_LANDMARKS} landmarks"
            )
    return wrong


def _find_frame(
    capture: Capture, timestep: Timestep, detector: Detector
) -> list[_Found]:
    """What each camera sees."""
    row = []
    for camera_id in capture.cameras:
        points = detector.find(capture.rgb(timestep, camera_id))
        nothing = np.zeros((NUM_LANDMARKS, 2), np.float32)
        row.append(_Found(nothing if points is None else points, points is not None))
    return row


def _write(
    capture: Capture,
    timesteps: Sequence[Timestep],
    rows: Sequence[Sequence[_Found]],
    output: Path,
    model: Path,
) -> list[FaceCheck]:
    """Triangulates a sequence, and writes its file and record."""
    sequence = timesteps[0].sequence
    image_points = np.array([[found.points for found in row] for row in rows])
    seen = np.array([[found.seen for found in row] for row in rows])
    size = np.array([capture.width, capture.height])
    faces = []
    for timestep, points, by in zip(timesteps, image_points, seen, strict=True):
        K, world2cam = _cameras(capture, timestep)
        faces.append(triangulate_face(points * size, by, K, world2cam))
    arrays: dict[str, Any] = {
        "frame_id": np.array([t.frame_id for t in timesteps], np.int64),
        "cameras": np.array(capture.cameras),
        "size": size.astype(np.int64),
        "image_points": image_points.astype(np.float32),
        "seen": seen,
        "points": np.stack([face.points for face in faces]),
        "agreeing": np.stack([face.agreeing for face in faces]),
        "error": np.stack([face.error for face in faces]),
    }
    record = sequence_record(output, _KIND, sequence)
    made_of = _made_of(capture, sequence, model)
    begin_record(record, made_of)
    with atomic_write(_file_of(output, sequence)) as file:
        np.savez_compressed(file, **arrays)
    checks = [
        FaceCheck(t.frame_id, int(by.sum()), len(by), int((face.agreeing > 0).sum()))
        for t, by, face in zip(timesteps, seen, faces, strict=True)
    ]
    middle = len(timesteps) // 2
    picture = _drawn(capture, timesteps[middle], rows[middle])
    write_record(record, made_of, [check._asdict() for check in checks], picture)
    return checks


def _drawn(capture: Capture, timestep: Timestep, row: Sequence[_Found]) -> np.ndarray:
    """The landmarks over what each camera sees, side by side."""
    tiles = []
    for camera_id, found in zip(capture.cameras, row, strict=True):
        tile = shrink(capture.rgb(timestep, camera_id)).copy()
        if found.seen:
            at = (found.points * (tile.shape[1], tile.shape[0])).astype(int)
            inside = ((at >= 0) & (at < (tile.shape[1], tile.shape[0]))).all(axis=1)
            tile[at[inside, 1], at[inside, 0]] = _COLOR
        tiles.append(tile)
    return np.concatenate(tiles, axis=1)


def _cameras(capture: Capture, timestep: Timestep) -> tuple[np.ndarray, np.ndarray]:
    """K [C, 3, 3] and world-to-camera [C, 4, 4]."""
    cameras = [capture.camera(timestep, c) for c in capture.cameras]
    return np.stack([c.K for c in cameras]), np.stack([c.world2cam for c in cameras])


def _file_of(output: Path, sequence: str) -> Path:
    return output / "sequences" / sequence / LANDMARKS


def _made_of(capture: Capture, sequence: str, model: Path) -> Mapping[str, Any]:
    """What decides where landmarks are."""
    timesteps = [t for t in capture.timesteps if t.sequence == sequence]
    return {
        "version": _VERSION,
        "frames": [t.frame_id for t in timesteps],
        "cameras": list(capture.cameras),
        "size": [capture.width, capture.height],
        "calibration": calibration_digest(capture, timesteps[0]),
        **stamps({"model": model}),
    }
