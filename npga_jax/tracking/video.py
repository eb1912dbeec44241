"""Tracks a head in a video of one camera, by the landmarks of its face."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from npga_jax.core import Progress, check_writable, write_json
from npga_jax.data import read_frames
from npga_jax.io import write_video
from npga_jax.nphm import MILLIMETRES_PER_UNIT, HeadModel
from npga_jax.tracking import schedule
from npga_jax.tracking.alignment import Similarity, refined
from npga_jax.tracking.equations import PriorWeights, Unknowns, unobserved
from npga_jax.tracking.faces import Faces, find_faces
from npga_jax.tracking.files import Tracked, model_name, write_tracked
from npga_jax.tracking.head_prior import LoadedPrior
from npga_jax.tracking.landmark_term import (
    LandmarkTable,
    ModelLandmarks,
    landmark_term,
    landmarks_of,
    model_landmarks,
    packaged_table,
)
from npga_jax.tracking.monocular import (
    Lens,
    pose_by_landmarks,
    ray_sightings,
    usual_lens,
)
from npga_jax.tracking.overlay import draw_head
from npga_jax.tracking.smoothing import runs_of, smooth_track
from npga_jax.tracking.terms import Term
from npga_jax.tracking.video_lids import lower_lids

_NOISE = 1.5 / MILLIMETRES_PER_UNIT
_COARSE = 8.0
"""Noises that residuals may be off at first, before the identity is known."""
_IDENTITY_FRAMES = 16
_BLOCKS = (8, 64)
"""Frames whose codes are sought together: the smallest that holds all, at most the
largest, so that what is held in memory does not grow with the video."""
_MOST_LANDMARKS = 140
_STAGE = schedule.FitStage(1.0, 1.0, -1.0, 6)
"""Distances to a surface are not observed: only the number of iterations counts."""
_MOST_OFF = 8.0
"""Millimetres, median, beyond which a frame is not taken for tracked."""
_MUST_HAVE = (
    *(33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
    *(263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249),
    *(61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181),
    *(91, 146, 78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317),
    *(14, 87, 178, 88, 95, 70, 63, 105, 66, 107, 336, 296, 334, 293, 300),
)
"""Lids, lips and brows, which expressions move."""


class VideoTrack(NamedTuple):
    """A head through a video; the camera is the world."""

    frame_id: np.ndarray  # [T]
    unknowns: Unknowns
    poses: list[Similarity]
    error_mm: np.ndarray  # [T] median distance of landmarks from their rays, as fitted
    failed: np.ndarray  # frame ids that were found and not fitted
    faces: Faces
    lens: Lens
    seconds: float  # of the fit


def track_video(
    video: Path,
    model: Path,
    loaded: LoadedPrior,
    *,
    lens: Lens | None = None,
    smooth: bool = True,
    progress: bool = True,
) -> VideoTrack:
    """Identity from some frames, then expression and pose of each.

    Args:
      video: of one person, mostly.
      model: MediaPipe's face landmarker.
      loaded: head model.
      lens: of the camera; None for a usual one.
      smooth: whether codes and poses are smoothed in time, as their noise asks for.
      progress: whether to say on stderr how far it is.

    Raises:
      InputError: see `find_faces`.
    """
    faces = find_faces(video, model, progress=progress)
    return fit_faces(faces, loaded, lens=lens, smooth=smooth, progress=progress)


def fit_faces(
    faces: Faces,
    loaded: LoadedPrior,
    *,
    lens: Lens | None = None,
    smooth: bool = True,
    progress: bool = True,
) -> VideoTrack:
    """The same from landmarks that were found; see `track_video`."""
    began = time.perf_counter()
    params = jax.tree.map(jnp.asarray, loaded.model.params)
    head = loaded.model._replace(params=params)
    lens = lens or usual_lens(faces.width, faces.height)
    table = packaged_table()
    used = chosen_landmarks(table)
    landmarks = model_landmarks(head, table, used)
    trust = (np.median(table.spread[used]) / table.spread[used]) ** 2
    mean = (table.points + table.offsets)[used]
    pixels = faces.pixels[:, used].astype(np.float64)
    poses = [pose_by_landmarks(mean, own, lens) for own in pixels]
    prior = PriorWeights(
        noise=1.0,
        geo=1.0 / loaded.geo_std**2,
        exp=1.0 / loaded.exp_std**2,
    )
    geo = _fit_identity(head, landmarks, poses, pixels, trust, lens, prior, progress)
    exp, pose = [], []
    count = len(poses)
    block = next((size for size in _BLOCKS if size >= count), _BLOCKS[-1])
    with Progress("codes", count, unit="frames", show=progress) as say:
        for start in range(0, count, block):
            rows = np.minimum(np.arange(start, start + block), count - 1)
            term = _term(landmarks, poses, pixels, trust, lens, rows)
            found = _fit_block(head, geo, term, prior)
            known = min(block, count - start)
            exp.append(np.asarray(found.exp[:known]))
            pose.append(np.asarray(found.pose[:known]))
            say(start + known)
    exp, residual = np.concatenate(exp), np.concatenate(pose).astype(np.float64)
    poses = [refined(p, r) for p, r in zip(poses, residual, strict=True)]
    error = _errors(head, landmarks, geo, exp, poses, pixels, lens)
    good = np.isfinite(error) & (error < _MOST_OFF)
    failed = faces.frame_id[~good]
    poses = [pose for pose, is_good in zip(poses, good, strict=True) if is_good]
    frame_id, exp, error = faces.frame_id[good], exp[good], error[good]
    if smooth:
        exp, poses = _smoothed(frame_id, exp, poses)
    exp = lower_lids(head, geo, exp, poses, faces.pixels[good], lens, prior)
    unknowns = Unknowns(np.asarray(geo), exp, np.zeros((len(exp), 6), np.float32))
    seconds = time.perf_counter() - began
    return VideoTrack(frame_id, unknowns, poses, error, failed, faces, lens, seconds)


def chosen_landmarks(table: LandmarkTable) -> np.ndarray:
    """Landmarks to fit: lids, lips and brows, and of the others the most faithful."""
    must = np.array(_MUST_HAVE)
    others = np.setdiff1d(np.argsort(table.spread)[: 2 * _MOST_LANDMARKS], must)
    others = others[np.argsort(table.spread[others])]
    return np.sort(np.concatenate([must, others[: _MOST_LANDMARKS - len(must)]]))


def _term(
    landmarks: ModelLandmarks,
    poses: list[Similarity],
    pixels: np.ndarray,
    trust: np.ndarray,
    lens: Lens,
    rows: np.ndarray,
) -> Term:
    some = [poses[i] for i in rows]
    return landmark_term(
        landmarks, ray_sightings(some, pixels[rows], trust, lens), _NOISE
    )


def _fit_identity(head, landmarks, poses, pixels, trust, lens, prior, progress):
    """The identity, from frames spread over the video: [G]."""
    count = len(poses)
    rows = np.unique(np.linspace(0, count - 1, _IDENTITY_FRAMES).round().astype(int))
    rows = np.concatenate([rows, np.full(_IDENTITY_FRAMES - len(rows), rows[-1])])
    term = _term(landmarks, poses, pixels, trust, lens, rows)
    unknowns = schedule.start(head.cfg, _IDENTITY_FRAMES)
    for scale in (_COARSE, _COARSE / 2, _COARSE / 4):
        unknowns = schedule.fit_identity(
            head,
            unobserved(_IDENTITY_FRAMES),
            unknowns,
            np.zeros(_IDENTITY_FRAMES),
            prior,
            (_STAGE,),
            terms=(dataclasses.replace(term, scale=jnp.float32(scale * _NOISE)),),
            progress=progress,
        )
    return unknowns.geo


def _fit_block(head: HeadModel, geo, term: Term, prior) -> Unknowns:
    """Expressions and poses of a block of frames."""
    count = len(term.frames[0])
    unknowns = schedule.start(head.cfg, count)._replace(geo=geo)
    for scale in (_COARSE, _COARSE / 4):
        unknowns = schedule.fit_expressions(
            head,
            unobserved(count),
            unknowns,
            np.zeros(count),
            prior,
            (_STAGE,),
            terms=(dataclasses.replace(term, scale=jnp.float32(scale * _NOISE)),),
        )
    return unknowns


def _errors(head, landmarks, geo, exp, poses, pixels, lens) -> np.ndarray:
    """Median distances of landmarks from the rays they are seen along: [T] mm."""
    errors = np.zeros(len(poses))
    for i, pose in enumerate(poses):
        sight = ray_sightings([pose], pixels[i : i + 1], np.ones(1), lens)
        places, valid = landmarks_of(head.params, head.cfg, landmarks, geo, exp[i])
        seen = places + landmarks.offsets
        apart = np.einsum("lij,lj->li", sight.across[0], seen - sight.points[0])
        known = np.asarray(valid)
        errors[i] = np.inf
        if known.any():
            errors[i] = np.median(np.linalg.norm(apart[known], axis=-1))
    return errors * MILLIMETRES_PER_UNIT


def _smoothed(
    frame_id: np.ndarray, exp: np.ndarray, poses: list[Similarity]
) -> tuple[np.ndarray, list[Similarity]]:
    """Codes and poses, each stretch without a gap by itself."""
    exp, out = exp.copy(), list(poses)
    for part in runs_of(frame_id):
        exp[part] = smooth_track(exp[part])
        own = poses[part]
        first = own[0].rotation
        turns = [Rotation.from_matrix(first.T @ p.rotation).as_rotvec() for p in own]
        turns = smooth_track(np.stack(turns))
        shifts = smooth_track(np.stack([p.translation for p in own]))
        out[part] = [
            Similarity(first @ Rotation.from_rotvec(t).as_matrix(), s, p.scale)
            for t, s, p in zip(turns, shifts, own, strict=True)
        ]
    return exp, out


def write_video_track(
    output: Path, name: str, track: VideoTrack, loaded: LoadedPrior
) -> Path:
    """Writes <output>/<name>/tracking/nphm.npz and <output>/<name>/report.json.

    Returns:
      The driving file.
    """
    check_writable(output)
    path = write_tracked(output, name, tracked_file(track, loaded))
    assert path is not None  # Callers see to it that there are frames.
    faces = track.faces
    lost = np.setdiff1d(np.arange(faces.num_frames), track.frame_id)
    gaps = [[int(lost[r][0]), int(lost[r][-1])] for r in runs_of(lost) if len(lost)]
    report = {
        "model": loaded.name,
        "num_frames": faces.num_frames,
        "num_tracked": len(track.frame_id),
        "gaps": gaps,
        "failed": track.failed.tolist(),
        "frames_with_other_faces": faces.num_crowded,
        "focal_pixels": float(track.lens.K[0, 0]),
        "median_mm": float(np.median(track.error_mm)),
        "seconds_per_frame": track.seconds / max(len(faces.frame_id), 1),
    }
    write_json(output / name / "report.json", report)
    return path


def tracked_file(track: VideoTrack, loaded: LoadedPrior) -> Tracked:
    """What is kept of a track."""
    return Tracked(
        frame_id=track.frame_id,
        expr=np.asarray(track.unknowns.exp),
        world_from_head=np.stack([pose.matrix() for pose in track.poses]),
        z_id=np.asarray(track.unknowns.geo),
        residual_mm=track.error_mm,
        model=model_name(loaded),
    )


def write_video_overlay(
    output: Path, name: str, video: Path, track: VideoTrack, model: HeadModel
) -> Path:
    """The tracked head drawn over its video: <output>/<name>/overlay.mp4."""
    rows = {int(frame): i for i, frame in enumerate(track.frame_id)}
    geo, exp = np.asarray(track.unknowns.geo), np.asarray(track.unknowns.exp)

    def frames() -> Iterator[np.ndarray]:
        for moment, image in enumerate(read_frames(video, "rgb")):
            i = rows.get(moment)
            if i is None:
                yield np.concatenate([image, image], axis=1)
                continue
            codes = (geo, exp[i])
            yield draw_head(
                image, model, codes, track.poses[i].matrix(), np.eye(4), track.lens.K
            )

    path = output / name / "overlay.mp4"
    write_video(path, frames(), track.faces.fps)
    return path
