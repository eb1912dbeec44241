"""Reads videos and label maps frame by frame, never a whole one at once."""

import dataclasses
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import av
import numpy as np
from PIL import Image

from npga_jax.core import InputError

Kind = Literal["rgb", "alpha", "labels"]
_PIXEL_FORMATS = {"rgb": "rgb24", "alpha": "gray"}


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What a file says of itself; its number of frames can be wrong."""

    width: int
    height: int
    fps: float  # 0 if not stated
    num_frames: int  # 0 if not stated


def probe(path: Path, kind: Kind) -> VideoInfo:
    """Reads a file's header.

    Args:
      path: A video, or for labels an .npz with `labels` [T, H, W] uint8.
      kind: What it holds.

    Raises:
      InputError: if the header cannot be read.
    """
    if kind == "labels":
        with _LabelMaps(path) as maps:
            num_frames, height, width = maps.shape
            return VideoInfo(width, height, 0.0, num_frames)
    try:
        with av.open(str(path)) as container:
            stream = _video_stream(path, container)
            fps = float(stream.average_rate or 0)
            num_frames = stream.frames
            if not num_frames and container.duration and fps:
                num_frames = round(container.duration / av.time_base * fps)
            return VideoInfo(stream.width, stream.height, fps, num_frames)
    except av.FFmpegError as error:
        raise _unreadable(path, 0, error) from error


def decode(
    path: Path, kind: Kind, stride: int, on_frame: Callable[[np.ndarray], None]
) -> int:
    """Decodes a file from its beginning to its end.

    Args:
      path: As for `probe`.
      kind: What it holds.
      stride: Every how many frames `on_frame` is called, from the first on.
      on_frame: Takes a frame in the file's resolution: uint8, [H, W, 3] for rgb,
        [H, W] otherwise.

    Returns:
      The number of frames in the file.

    Raises:
      InputError: if the file is damaged, or shorter than it says.
    """
    if kind == "labels":
        with _LabelMaps(path) as maps:
            for i in range(maps.shape[0]):
                frame = maps.read_frame(i)
                if i % stride == 0:
                    on_frame(frame)
            return maps.shape[0]
    num_frames, num_stated = 0, 0
    try:
        with av.open(str(path)) as container:
            stream = _video_stream(path, container)
            stream.thread_type = "AUTO"
            num_stated = stream.frames
            for packet in container.demux(stream):
                # The decoder would paper over a packet that is cut short.
                if packet.is_corrupt:
                    raise _unreadable(path, num_frames, None, num_stated)
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise _unreadable(path, num_frames, None, num_stated)
                    if num_frames % stride == 0:
                        on_frame(frame.to_ndarray(format=_PIXEL_FORMATS[kind]))
                    num_frames += 1
    except av.FFmpegError as error:
        raise _unreadable(path, num_frames, error) from error
    if num_frames == 0 or num_frames < num_stated - 1:
        raise _unreadable(path, num_frames, None, num_stated)
    return num_frames


def resize(frame: np.ndarray, kind: Kind, width: int, height: int) -> np.ndarray:
    """Brings a frame to the size that is used.

    Images are averaged over the area of each new pixel; mattes smaller than that are
    interpolated. Labels take the map's pixel at floor(y * H_map / height), because
    maps at half resolution sample the even pixels.

    Args:
      frame: [H, W, 3] or [H, W] uint8.
      kind: What it is.
      width: Of the result.
      height: Of the result.

    Returns:
      [height, width, 3] or [height, width] uint8.
    """
    frame_height, frame_width = frame.shape[:2]
    if (frame_width, frame_height) == (width, height):
        return frame
    if kind == "labels":
        rows = np.arange(height) * frame_height // height
        columns = np.arange(width) * frame_width // width
        return frame[rows[:, None], columns]
    image = Image.fromarray(frame)
    if frame_width % width == 0 and frame_height % height == 0:
        return np.asarray(image.reduce((frame_width // width, frame_height // height)))
    is_shrunk = frame_width >= width and frame_height >= height
    method = Image.Resampling.BOX if is_shrunk else Image.Resampling.BILINEAR
    return np.asarray(image.resize((width, height), method))


class _LabelMaps:
    """Streams the array `labels` [T, H, W] uint8 out of an .npz."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> "_LabelMaps":
        try:
            self._archive = zipfile.ZipFile(self._path)
            self._member = self._archive.open("labels.npy")
            version = np.lib.format.read_magic(self._member)
            if version == (1, 0):
                header = np.lib.format.read_array_header_1_0(self._member)
            else:
                header = np.lib.format.read_array_header_2_0(self._member)
        except (OSError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise _unreadable(self._path, 0, error) from error
        self.shape, is_fortran, dtype = header
        if len(self.shape) != 3 or dtype != np.uint8 or is_fortran:
            raise InputError(
                f"{self._path}: 'labels' must be [T, H, W] uint8 in C order, but is "
                f"{self.shape} {dtype}. Write the label maps again."
            )
        return self

    def read_frame(self, index: int) -> np.ndarray:
        """Reads the next map; `index` is only for the message."""
        height, width = self.shape[1:]
        try:
            data = self._member.read(height * width)
            if len(data) < height * width:
                raise EOFError("it ends too early")
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise _unreadable(self._path, index, error, self.shape[0]) from error
        return np.frombuffer(data, np.uint8).reshape(height, width)

    def __exit__(self, *_: object) -> None:
        self._member.close()
        self._archive.close()


def _video_stream(
    path: Path, container: av.container.InputContainer
) -> av.video.stream.VideoStream:
    if not container.streams.video:
        raise _unreadable(path, 0, None)
    return container.streams.video[0]


def _unreadable(
    path: Path, num_read: int, error: Exception | None, num_stated: int = 0
) -> InputError:
    total = f" of {num_stated}" if num_stated else ""
    reason = f" ({getattr(error, 'strerror', None) or error})" if error else ""
    return InputError(
        f"{path} is cut short or damaged: {num_read}{total} frames could be "
        f"read{reason}. Copy or download it again."
    )
