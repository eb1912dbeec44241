"""Frames to be tracked: a bounded draw of each cloud, and a first pose."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from npga_jax.core import InputError
from npga_jax.data import Capture, Landmarks, Timestep
from npga_jax.nphm import Codes, HeadModel, head_mesh
from npga_jax.tracking.alignment import (
    Similarity,
    align_head,
    facing_cameras,
    similarity_from_matrix,
)
from npga_jax.tracking.clouds import FaceRegion, SkinPoints, drawn, skin_points
from npga_jax.tracking.first_landmarks import pose_of_landmarks
from npga_jax.tracking.options import TrackingOptions
from npga_jax.tracking.template import packaged_template

_MEAN_HEAD_RESOLUTION = 96
_FEWEST_POINTS = 200
_MOST_JUDGED = 4_000
"""Points of a frame that its report is made of."""


class Frame(NamedTuple):
    """A frame to be tracked.

    Of a cloud, only two draws are kept: clouds of a few hundred thousand points times
    a few thousand frames are more than memory holds.
    """

    timestep: Timestep
    points: SkinPoints  # to fit
    judged: np.ndarray  # [J, 3] world, metres: what the fit is measured at
    num_points: int  # of skin, in the cloud
    pose: Similarity  # a first one
    landmarks: Landmarks | None  # of the face


def gather_frames(
    capture: Capture,
    model: HeadModel,
    sequences: Sequence[str],
    options: TrackingOptions,
) -> tuple[list[Frame], list[Timestep]]:
    """Reads the clouds of some sequences, one after the other.

    Args:
      capture: with clouds.
      model: whose mean head the first poses are found with.
      sequences: which to read.
      options: how many points to draw, and the seed.

    Returns:
      The frames in the capture's order, and the timesteps without a usable cloud.

    Raises:
      InputError: no frame has one.
    """
    rng = np.random.default_rng(options.seed)
    judging_rng = np.random.default_rng(options.seed + 1)
    codes = Codes(
        geo=np.zeros(model.cfg.lat_dim_geo, np.float32),
        app=np.zeros(model.cfg.lat_dim_app, np.float32),
        exp=np.zeros(model.cfg.lat_dim_exp, np.float32),
    )
    head = head_mesh(
        model, codes, posed=False, resolution=_MEAN_HEAD_RESOLUTION, with_color=False
    ).vertices.astype(np.float64)
    poses = _FirstPoses(capture, head)
    region = FaceRegion(packaged_template())
    frames, without = [], []
    for timestep in capture.timesteps:
        if timestep.sequence not in sequences:
            continue
        skin = skin_points(capture, timestep)
        if skin is None or len(skin.xyz) < _FEWEST_POINTS:
            without.append(timestep)
            continue
        points = drawn(skin, options.points, rng)
        pose = poses.find(timestep, points.xyz)
        if not skin.is_labelled:
            skin = region.of(skin, pose)
            if len(skin.xyz) < _FEWEST_POINTS:
                without.append(timestep)
                continue
            points = drawn(skin, options.points, rng)
        judged = drawn(skin, _MOST_JUDGED, judging_rng).xyz
        landmarks = capture.landmarks(timestep)
        frames.append(Frame(timestep, points, judged, len(skin.xyz), pose, landmarks))
    if not frames:
        raise InputError(
            f"subject {capture.subject}: no frame of {', '.join(sequences)} has a "
            f"point cloud with {_FEWEST_POINTS} points of skin or more; tracking needs "
            "sequences/SEQ/pointclouds/frame_*.pcd (multi-view stereo)."
        )
    return frames, without


class _FirstPoses:
    """First poses: found on one frame, carried to the others.

    A tracker's poses say how the head moves from frame to frame, up to one rigid motion
    between its frame and ours. Without them, each frame starts from the one before.
    Where a frame has landmarks, these say where the head is, and no guess is needed.
    """

    def __init__(self, capture: Capture, head: np.ndarray):
        """Takes the vertices [V, 3] of the mean head, NPHM units."""
        self._capture, self._head = capture, head
        self._pose: Similarity | None = None
        self._between: np.ndarray | None = None  # [4, 4] our head to the tracker's

    def find(self, timestep: Timestep, points: np.ndarray) -> Similarity:
        """The pose of the next frame, from its points [P, 3] in the world, metres."""
        tracked = self._capture.has_driving(timestep)
        if self._between is not None and tracked:
            matrix = self._theirs(timestep) @ self._between
            self._pose = similarity_from_matrix(matrix)
            return self._pose
        is_first = self._pose is None
        self._pose = self._seen(timestep) or self._guessed(timestep, points)
        if is_first and tracked:
            self._between = np.linalg.inv(self._theirs(timestep)) @ self._pose.matrix()
        return self._pose

    def _seen(self, timestep: Timestep) -> Similarity | None:
        """From landmarks, where there are some: closest points would not improve it."""
        landmarks = self._capture.landmarks(timestep)
        return None if landmarks is None else pose_of_landmarks(landmarks)

    def _guessed(self, timestep: Timestep, points: np.ndarray) -> Similarity:
        """From the frame before, a tracker, and where the cameras look."""
        cameras = [
            self._capture.camera(timestep, c).world2cam for c in self._capture.cameras
        ]
        # Heads move far between frames, further between sequences.
        guesses: list[Similarity] = []
        if self._pose is not None:
            guesses.append(self._pose)
        elif self._capture.has_driving(timestep):
            guesses.append(similarity_from_matrix(self._theirs(timestep)))
        guesses.append(facing_cameras(points, cameras))
        return align_head(points.astype(np.float64), self._head, guesses)[0]

    def _theirs(self, timestep: Timestep) -> np.ndarray:
        return self._capture.driving(timestep).world_from_head.astype(np.float64)
