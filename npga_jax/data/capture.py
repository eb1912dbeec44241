"""What every capture looks like to the rest of the project, whatever its layout.

Normal form: OpenCV axes, world-to-camera, metres, intrinsics in pixels of the image
that is returned. Pixel (0, 0) covers [0, 1] x [0, 1]: its centre is at (0.5, 0.5), so
changing the resolution is a pure scaling of the first two rows of K.
"""

import abc
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from npga_jax.core import InputError
from npga_jax.data.landmarks import Landmarks, read_landmarks
from npga_jax.data.settings import CaptureConfig


@dataclasses.dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera of one frame."""

    K: np.ndarray  # [3, 3] float32, pixels of the returned image
    world2cam: np.ndarray  # [4, 4] float32, OpenCV, metres
    width: int
    height: int
    camera_id: str


@dataclasses.dataclass(frozen=True)
class Timestep:
    """One moment of a capture, seen by all cameras at once."""

    index: int  # counts 0, 1, 2, ... through the whole capture
    sequence: str
    frame_id: int  # frame of the raw video


@dataclasses.dataclass(frozen=True, eq=False)
class Driving:
    """What drives the avatar at one timestep."""

    expr: np.ndarray  # [E] float32
    world_from_head: np.ndarray  # [4, 4] float32, similarity; both sides in metres


@dataclasses.dataclass(frozen=True, eq=False)
class PointCloud:
    """Points on the surface at one timestep."""

    xyz: np.ndarray  # [P, 3] float32, world, metres
    rgb: np.ndarray  # [P, 3] float32 in [0, 1]
    normals: np.ndarray | None  # [P, 3] float32, world; zero where unknown


class Footage(Protocol):
    """What a training step has to know of a capture before it sees one."""

    @property
    def width(self) -> int:
        """Of its images, in pixels."""
        ...

    @property
    def height(self) -> int:
        """Of its images, in pixels."""
        ...

    @property
    def expr_names(self) -> tuple[str, ...]:
        """Of the numbers of an expression code, in their order."""
        ...

    @property
    def has_mattes(self) -> bool:
        """Whether its images come with alpha mattes."""
        ...


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Capture(abc.ABC):
    """Calibrated videos of one person, with driving codes.

    A reader of a layout subclasses this and answers for one timestep and camera at a
    time; nothing else of the project asks for a layout. Cameras are asked for per
    timestep because some layouts move them between sequences.
    """

    subject: str
    root: Path
    fps: float  # timesteps a second: the video's rate divided by `frame_stride`
    frame_stride: int
    width: int
    height: int
    sequences: tuple[str, ...]
    cameras: tuple[str, ...]
    timesteps: tuple[Timestep, ...]
    expr_names: tuple[str, ...]
    driving_model: str
    has_mattes: bool  # All images have one, or none.
    notes: tuple[str, ...] = ()  # sentences about what was ignored or is missing
    driving_paths: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    """Files that the codes of each sequence are from; those of a head tracker lie
    beside the person's identity. Without files, empty."""
    landmark_paths: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    """Files of triangulated landmarks, of the sequences that have one."""
    settings: CaptureConfig = CaptureConfig()
    """Which part of it is used, and how: as it was opened."""

    @property
    def expr_dim(self) -> int:
        """Length of the expression code."""
        return len(self.expr_names)

    @property
    def driving_name(self) -> str:
        """What --capture.driving calls these codes; "" if names differ, or for none."""
        names = {path.stem for path in self.driving_paths.values()}
        return names.pop() if len(names) == 1 else ""

    def has_driving(self, timestep: Timestep) -> bool:
        """Whether there are a code and a pose; always, unless they were not needed."""
        return True

    def has_points(self, timestep: Timestep) -> bool:
        """Whether there is a point cloud."""
        return self.points(timestep) is not None

    def has_labels(self, timestep: Timestep, camera_id: str) -> bool:
        """Whether there is a label map."""
        return self.labels(timestep, camera_id) is not None

    def landmarks(self, timestep: Timestep) -> Landmarks | None:
        """The triangulated landmarks of the face, or None if there are none of it."""
        path = self.landmark_paths.get(timestep.sequence)
        return None if path is None else read_landmarks(path, timestep.frame_id)

    def map_frames(self, sequence: str) -> tuple[int, ...]:
        """Frames that a file of label maps has maps of, in their order."""
        return tuple(t.frame_id for t in self.timesteps if t.sequence == sequence)

    @abc.abstractmethod
    def camera(self, timestep: Timestep, camera_id: str) -> Camera:
        """The calibrated camera at this timestep."""

    @abc.abstractmethod
    def rgb(self, timestep: Timestep, camera_id: str) -> np.ndarray:
        """[H, W, 3] uint8, colour-calibrated; at the person's rim its own colour.

        The background is still in it, or white where the images came without.
        """

    @abc.abstractmethod
    def alpha(self, timestep: Timestep, camera_id: str) -> np.ndarray | None:
        """[H, W] uint8, 255 on the person; None if the capture has no mattes."""

    @abc.abstractmethod
    def labels(self, timestep: Timestep, camera_id: str) -> np.ndarray | None:
        """[H, W] uint8 in facer numbering (`segmentation`), or None."""

    @abc.abstractmethod
    def driving(self, timestep: Timestep) -> Driving:
        """The expression code and head pose."""

    @abc.abstractmethod
    def points(self, timestep: Timestep) -> PointCloud | None:
        """The frame's point cloud, or None if there is no file for it."""


def match_sequences(sequences: tuple[str, ...], prefix: str) -> tuple[str, ...]:
    """Finds sequences by name or prefix, because their full names are not stable.

    A prefix that ends where a word of the name ends wins: "SEN-1" is not "SEN-10"
    where there is a "SEN-1-...", and "EXP" is all the EXP sequences.
    """
    words = tuple(s for s in sequences if s == prefix or s.startswith(f"{prefix}-"))
    return words or tuple(s for s in sequences if prefix and s.startswith(prefix))


def find_sequence(sequences: tuple[str, ...], prefix: str) -> str:
    """Finds the one sequence that `prefix` means.

    Raises:
      InputError: if there is none, or more than one.
    """
    found = match_sequences(sequences, prefix)
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"sequence '{prefix}' is ambiguous: it could be {', '.join(found)}. "
            "Give more of the name."
        )
    raise InputError(
        f"there is no sequence '{prefix}' in this capture; it has "
        f"{', '.join(sequences) or 'none'}."
    )
