"""Reads captures in the NeRSemble v2 layout, with driving codes beside the videos."""

import dataclasses
import sys
from pathlib import Path

import numpy as np

from npga_jax.core import InputError
from npga_jax.data import decoding as video
from npga_jax.data import video_cache
from npga_jax.data.calibration import camera_as_stated
from npga_jax.data.capture import Camera, Capture, Driving, PointCloud, Timestep
from npga_jax.data.driving import DrivingFile
from npga_jax.data.landmarks import find_landmarks
from npga_jax.data.location import prepared_folder
from npga_jax.data.mattes import has_white_corners, is_on_white, take_off_white
from npga_jax.data.nersemble_survey import EntryKey, Survey, survey_nersemble
from npga_jax.data.pcd import read_pcd
from npga_jax.data.settings import CaptureConfig
from npga_jax.data.world import turn_normals


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class NersembleCapture(Capture):
    """A capture whose frames are in the cache, or are decoded when asked for."""

    views: dict[str, Camera]
    tracks: dict[str, DrivingFile]  # by sequence; without those that have no codes
    clouds: dict[tuple[str, int], Path]  # by sequence and frame
    normal_sign: int  # What normals of clouds are multiplied by: -1 turns them.
    entries: dict[EntryKey, video_cache.Entry]
    num_frames: dict[str, int]  # of the videos of each sequence
    is_decoded: bool  # All of it; else every read makes sure of its own file.

    def camera(self, timestep: Timestep, camera_id: str) -> Camera:
        """The camera; in this layout it never moves."""
        if camera_id not in self.views:
            raise InputError(
                f"subject {self.subject} has no camera {camera_id} at frame "
                f"{timestep.frame_id} of {timestep.sequence}; it has "
                f"{', '.join(self.views)}."
            )
        return self.views[camera_id]

    def rgb(self, timestep: Timestep, camera_id: str) -> np.ndarray:
        """[H, W, 3] uint8, background still in it unless the videos are on white."""
        image = self._frame(timestep, camera_id, "rgb")
        if image is None:
            raise InputError(
                f"subject {self.subject} has no video of camera {camera_id} in "
                f"{timestep.sequence}."
            )
        if not self.has_mattes or not has_white_corners(image):
            return image
        matte = self._frame(timestep, camera_id, "alpha")
        if matte is None or not is_on_white(image, matte):
            return image
        return take_off_white(image, matte)

    def alpha(self, timestep: Timestep, camera_id: str) -> np.ndarray | None:
        """[H, W] uint8, or None without a matte."""
        return self._frame(timestep, camera_id, "alpha")

    def labels(self, timestep: Timestep, camera_id: str) -> np.ndarray | None:
        """[H, W] uint8 in facer numbering, or None without a map."""
        if not self.has_labels(timestep, camera_id):
            return None
        return self._frame(timestep, camera_id, "labels")

    def has_labels(self, timestep: Timestep, camera_id: str) -> bool:
        """Whether there is a file with label maps of the video, made for the frame."""
        entry = self.entries.get((timestep.sequence, camera_id, "labels"))
        return entry is not None and entry.holds(timestep.frame_id)

    def has_driving(self, timestep: Timestep) -> bool:
        """Whether there are a code and a pose; always, unless they were not needed."""
        return timestep.sequence in self.tracks

    def driving(self, timestep: Timestep) -> Driving:
        """The tracker's code and pose."""
        if not self.has_driving(timestep):
            raise InputError(
                f"{timestep.sequence} of subject {self.subject} has no driving codes. "
                "Make them with experiments/track.py."
            )
        track = self.tracks[timestep.sequence]
        row = int(np.searchsorted(track.frame_id, timestep.frame_id))
        return Driving(track.expr[row], track.world_from_head[row])

    def map_frames(self, sequence: str) -> tuple[int, ...]:
        """Frames that a file of label maps has maps of: all of the videos'."""
        return tuple(range(self.num_frames[sequence]))

    def has_points(self, timestep: Timestep) -> bool:
        """Whether there is a file with the frame's point cloud."""
        return (timestep.sequence, timestep.frame_id) in self.clouds

    def points(self, timestep: Timestep) -> PointCloud | None:
        """The point cloud of the raw frame, or None without a file."""
        path = self.clouds.get((timestep.sequence, timestep.frame_id))
        if path is None:
            return None
        return turn_normals(read_pcd(path), self.normal_sign)

    def _frame(
        self, timestep: Timestep, camera_id: str, kind: video.Kind
    ) -> np.ndarray | None:
        entry = self.entries.get((timestep.sequence, camera_id, kind))
        if entry is None:
            return None
        if not self.is_decoded and video_cache.cached_contents(entry) is None:
            if timestep.frame_id == 0:  # To look at it takes no more than itself.
                return video_cache.read_first_frame(entry)
            num_frames = video.probe(entry.source, kind).contents.num_frames
            video_cache.fill_cache([entry], [num_frames], progress=False)
        return video_cache.read_frame(entry, timestep.frame_id // self.frame_stride)


def open_nersemble(
    root: Path,
    subject: str,
    cfg: CaptureConfig,
    *,
    progress: bool = True,
    decode: bool = True,
    need_driving: bool = True,
) -> NersembleCapture:
    """Opens a capture, and decodes what is not in the cache yet.

    Args:
      root: Holds the subjects (or `nvs/` with the subjects).
      subject: Name of the subject's folder.
      cfg: What to use of it.
      progress: Whether to say on stderr what is done.
      decode: False to decode no more than the files that are read from later: for
        captures that only drive, and to look at a few frames.
      need_driving: False if sequences may be without driving codes, as they are
        before they are tracked: all their frames are then timesteps.

    Raises:
      InputError: for the first thing that is wrong with the capture.
    """
    survey = survey_nersemble(root, subject, cfg, need_driving=need_driving)
    _raise_problems(survey)
    if progress and not cfg.frame_stride:
        print(
            f"subject {subject}: videos at {survey.video_fps:g} fps, frame stride "
            f"{survey.stride} (--capture.frame-stride)",
            file=sys.stderr,
        )
    if decode:
        survey = decode_all(survey, root, cfg, progress=progress)
        _raise_problems(survey)
    prepared = prepared_folder(survey.folder, cfg.cache_dir)
    landmarks = find_landmarks(survey.sequences, survey.folder, prepared)
    capture = capture_from_survey(survey)
    return dataclasses.replace(capture, settings=cfg, landmark_paths=landmarks)


def decode_all(
    survey: Survey, root: Path, cfg: CaptureConfig, *, progress: bool = True
) -> Survey:
    """Decodes what a survey found missing in the cache.

    Returns:
      A new survey, which knows the true numbers of frames.

    Raises:
      InputError: if the disk is too small, or a file is damaged.
    """
    if not survey.missing:
        return survey
    video_cache.fill_cache(
        [survey.entries[key] for key in survey.missing],
        [survey.num_frames(key) for key in survey.missing],
        progress=progress,
    )
    return survey_nersemble(root, survey.subject, cfg, need_driving=survey.need_driving)


def capture_from_survey(survey: Survey) -> NersembleCapture:
    """Makes a capture of a survey that found no problem."""
    track = next(iter(survey.tracks.values()), None)
    return NersembleCapture(
        subject=survey.subject,
        root=survey.folder,
        fps=survey.video_fps / survey.stride,
        frame_stride=survey.stride,
        width=survey.size[0],
        height=survey.size[1],
        sequences=survey.sequences,
        cameras=survey.cameras,
        timesteps=survey.timesteps,
        expr_names=track.expr_names if track else (),
        driving_model=track.model if track else "",
        notes=tuple(survey.notes),
        views=survey.views,
        tracks=survey.tracks,
        driving_paths=survey.driving_paths,
        has_mattes=any(kind == "alpha" for _, _, kind in survey.entries),
        clouds=survey.clouds,
        normal_sign=survey.normal_sign,
        entries=survey.entries,
        num_frames=_num_frames(survey),
        is_decoded=not survey.missing,
    )


def _num_frames(survey: Survey) -> dict[str, int]:
    """The most that a video of each sequence is known to have."""
    counts = dict.fromkeys(survey.sequences, 0)
    for (sequence, _, kind), contents in survey.contents.items():
        if kind == "rgb":
            counts[sequence] = max(counts[sequence], contents.num_frames)
    return counts


def capture_as_given(survey: Survey) -> NersembleCapture | None:
    """Makes a capture of a survey with problems, to look for their causes.

    Cameras are what the calibration says, even if that cannot be.

    Returns:
      The capture, or None where too little is known of it: no calibration, no video
      that can be opened, cameras that are not calibrated, or no frame.
    """
    calibration = survey.calibration
    if calibration is None or not survey.timesteps:
        return None
    if not set(survey.cameras) <= set(calibration.world2cam):
        return None
    views = {
        c: survey.views.get(c)
        or camera_as_stated(calibration, c, survey.video_size, survey.size)
        for c in survey.cameras
    }
    return dataclasses.replace(capture_from_survey(survey), views=views)


def _raise_problems(survey: Survey) -> None:
    if not survey.problems:
        return
    more = len(survey.problems) - 1
    rest = (
        f" ({more} more problem{'s' if more > 1 else ''}: see "
        "experiments/check_data.py)"
        if more
        else ""
    )
    raise InputError(survey.problems[0] + rest)
