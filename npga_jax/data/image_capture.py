"""A capture whose views are image files, whatever the layout they lie in.

Images are read and resized when they are asked for: a training step reads a few. As
they take longer than a step on a GPU does, the first gigabyte of them is kept.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from npga_jax.core import InputError
from npga_jax.data import video_cache
from npga_jax.data.capture import Camera, Capture, Driving, PointCloud, Timestep
from npga_jax.data.decoding import Kind, probe, resize
from npga_jax.data.driving import DrivingFile
from npga_jax.data.image_set import ImageView, ViewKey
from npga_jax.data.mattes import has_white_corners, is_on_white, take_off_white
from npga_jax.data.pcd import read_pcd
from npga_jax.data.world import turn_normals

_MAX_PIXELS = 1 << 27
"""Of an image file: more than any camera has."""
_MOST_KEPT = 1 << 30
"""Bytes. What comes later is read each time: steps draw at random, so that to replace
what is kept would gain nothing."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ImageCapture(Capture):
    """A capture of image files; `open_images` makes it."""

    views: Mapping[ViewKey, ImageView]
    tracks: Mapping[str, DrivingFile]  # by sequence; without those that have no codes
    codes_name: str  # what --capture.driving calls them; "" for none
    clouds: Mapping[tuple[str, int], Path]  # by sequence and frame
    normal_sign: int  # What normals of clouds are multiplied by: -1 turns them.
    maps: Mapping[tuple[str, str], video_cache.Entry]
    """Label maps that were made of this capture, by sequence and camera: a row for each
    frame of the layout, in order."""
    rows: Mapping[tuple[str, int], int]  # of those, by sequence and frame
    kept: dict[tuple[Path, Kind], np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def driving_name(self) -> str:
        """What --capture.driving calls these codes; "" for none."""
        return self.codes_name

    def camera(self, timestep: Timestep, camera_id: str) -> Camera:
        """The camera at this timestep: sequences may have cameras of their own."""
        view = self._view(timestep, camera_id)
        # Pixel centres are at +0.5, so this scaling holds for the principal point too.
        scale = np.array([self.width / view.size[0], self.height / view.size[1], 1.0])
        return Camera(
            K=(scale[:, None] * view.K).astype(np.float32),
            world2cam=view.world2cam.astype(np.float32),
            width=self.width,
            height=self.height,
            camera_id=camera_id,
        )

    def rgb(self, timestep: Timestep, camera_id: str) -> np.ndarray:
        """[H, W, 3] uint8; it may not be written to."""
        view = self._view(timestep, camera_id)
        return self._keep((view.path, "rgb"), lambda: self._read_rgb(view))

    def _read_rgb(self, view: ImageView) -> np.ndarray:
        image = read_picture(view.path, "rgb")
        height, width = image.shape[:2]
        if not is_same_aspect((width, height), view.size):
            raise InputError(
                f"{view.path} is {width}x{height}, but its camera is for "
                f"{view.size[0]}x{view.size[1]}: the aspect ratios differ. Write the "
                "image again."
            )
        image = resize(image, "rgb", self.width, self.height)
        if view.color is not None:
            levels = (image / np.float32(255)) @ view.color[:, :3] + view.color[:, 3]
            image = np.rint(255 * np.clip(levels, 0, 1)).astype(np.uint8)
        # Colours beside an alpha channel are the person's own.
        if view.matte is None or view.matte == view.path:
            return image
        if not has_white_corners(image):
            return image
        matte = self._read_alpha(view.matte) if self.has_mattes else None
        if matte is None or not is_on_white(image, matte):
            return image
        return take_off_white(image, matte)

    def alpha(self, timestep: Timestep, camera_id: str) -> np.ndarray | None:
        """[H, W] uint8, or None if mattes are not used."""
        matte = self._view(timestep, camera_id).matte
        if matte is None or not self.has_mattes:
            return None
        return self._read_alpha(matte)

    def _read_alpha(self, path: Path) -> np.ndarray:
        def read() -> np.ndarray:
            return resize(read_picture(path, "alpha"), "alpha", self.width, self.height)

        return self._keep((path, "alpha"), read)

    def _keep(
        self, key: tuple[Path, Kind], read: Callable[[], np.ndarray]
    ) -> np.ndarray:
        found = self.kept.get(key)
        if found is None:
            found = read()
            found.flags.writeable = False
            if (len(self.kept) + 1) * 3 * self.width * self.height <= _MOST_KEPT:
                self.kept[key] = found
        return found

    def labels(self, timestep: Timestep, camera_id: str) -> np.ndarray | None:
        """[H, W] uint8 in facer numbering, or None without a map."""
        path = self._view(timestep, camera_id).labels
        if path is not None:
            found = read_picture(path, "labels")
            return resize(found, "labels", self.width, self.height)
        entry = self.maps.get((timestep.sequence, camera_id))
        if entry is None or not entry.holds(timestep.frame_id):
            return None
        if video_cache.cached_contents(entry) is None:
            num_maps = probe(entry.source, "labels").contents.num_frames
            video_cache.fill_cache([entry], [num_maps], progress=False)
        row = self.rows[timestep.sequence, timestep.frame_id]
        return video_cache.read_frame(entry, row)

    def has_labels(self, timestep: Timestep, camera_id: str) -> bool:
        """Whether there is a label map."""
        if self._view(timestep, camera_id).labels is not None:
            return True
        entry = self.maps.get((timestep.sequence, camera_id))
        return entry is not None and entry.holds(timestep.frame_id)

    def map_frames(self, sequence: str) -> tuple[int, ...]:
        """Frames that a file of label maps has maps of: all of the layout's."""
        return tuple(sorted(f for s, f in self.rows if s == sequence))

    def has_driving(self, timestep: Timestep) -> bool:
        """Whether there are a code and a pose; always, unless they were not needed."""
        return self._row(timestep) is not None

    def driving(self, timestep: Timestep) -> Driving:
        """The code and pose."""
        row = self._row(timestep)
        if row is None:
            raise InputError(
                f"frame {timestep.frame_id} of {timestep.sequence} of subject "
                f"{self.subject} has no driving code. Make codes with "
                "experiments/track.py."
            )
        track = self.tracks[timestep.sequence]
        return Driving(track.expr[row], track.world_from_head[row])

    def has_points(self, timestep: Timestep) -> bool:
        """Whether there is a file with the frame's point cloud."""
        return (timestep.sequence, timestep.frame_id) in self.clouds

    def points(self, timestep: Timestep) -> PointCloud | None:
        """The frame's point cloud, or None without a file."""
        path = self.clouds.get((timestep.sequence, timestep.frame_id))
        if path is None:
            return None
        return turn_normals(read_pcd(path), self.normal_sign)

    def _row(self, timestep: Timestep) -> int | None:
        """Where a frame's code is in its sequence's track."""
        track = self.tracks.get(timestep.sequence)
        if track is None:
            return None
        row = int(np.searchsorted(track.frame_id, timestep.frame_id))
        is_there = row < len(track.frame_id)
        return row if is_there and track.frame_id[row] == timestep.frame_id else None

    def _view(self, timestep: Timestep, camera_id: str) -> ImageView:
        view = self.views.get((timestep.sequence, timestep.frame_id, camera_id))
        if view is None:
            raise InputError(
                f"subject {self.subject} has no camera {camera_id} at frame "
                f"{timestep.frame_id} of {timestep.sequence}; it has "
                f"{', '.join(self.cameras)}."
            )
        return view


def read_picture(path: Path, kind: Kind) -> np.ndarray:
    """Reads an image file.

    Args:
      path: Of the file.
      kind: What is taken of it: colours; a matte, which is the alpha channel where
        there is one, else the first; or labels, the first channel.

    Returns:
      [H, W, 3] uint8 for "rgb", else [H, W] uint8.

    Raises:
      InputError: there is no such file, or it is no image.
    """
    try:
        with Image.open(path) as picture:
            _check_pixels(path, picture.size)
            if kind == "rgb":
                return np.asarray(picture.convert("RGB"))
            if kind == "alpha" and has_alpha(picture):
                return np.asarray(picture.convert("RGBA"))[..., 3]
            if kind == "labels" and picture.mode == "P":
                return np.asarray(picture)  # Numbers, not the colours that show them.
            if picture.mode in ("L", "1"):
                return np.asarray(picture.convert("L"))
            if picture.mode.startswith("I"):
                levels = np.asarray(picture).astype(np.int64)
                wide = levels.max(initial=0) > 255 and kind == "alpha"
                return (levels >> (8 if wide else 0)).astype(np.uint8)
            return np.ascontiguousarray(np.asarray(picture.convert("RGB"))[..., 0])
    except FileNotFoundError as error:
        raise InputError(
            f"there is no {path}. Copy it again, or leave its sequence or camera out "
            "with --capture.ignore-sequences or --capture.ignore-cameras."
        ) from error
    except (
        OSError,
        UnidentifiedImageError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is no readable image ({error}). Copy or write it again."
        ) from error


def picture_header(path: Path) -> tuple[tuple[int, int], bool]:
    """The size (W, H) of an image file, and whether it has an alpha channel.

    Raises:
      InputError: there is no such file, or it is no image.
    """
    try:
        with Image.open(path) as picture:
            _check_pixels(path, picture.size)
            return picture.size, has_alpha(picture)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path} is no readable image ({error}). Copy or write it again."
        ) from error


def has_alpha(picture: Image.Image) -> bool:
    """Whether an image has an alpha channel."""
    return picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info


def is_same_aspect(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes (W, H) are of one shape, to the pixel."""
    return abs(other[1] * size[0] / other[0] - size[1]) <= 1


def _check_pixels(path: Path, size: tuple[int, int]) -> None:
    if size[0] * size[1] > _MAX_PIXELS:
        raise InputError(
            f"{path} claims {size[0]}x{size[1]} pixels; expected at most "
            f"{_MAX_PIXELS:,}. Write it again."
        )
