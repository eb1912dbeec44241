"""Reads videos and label maps frame by frame, never a whole one at once."""

import contextlib
import dataclasses
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Literal

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from PIL import Image

from npga_jax.core import InputError, open_archive
from npga_jax.data.mattes import matte_levels, say_wrong_levels

Kind = Literal["rgb", "alpha", "labels"]
_PIXEL_FORMATS = {"rgb": "rgb24", "alpha": "gray"}
_ONE = 1 << 16  # In the fixed point numbers of a display matrix.
_MAX_MAP_PIXELS = 1 << 26
_MAX_MAP_BYTES = 1 << 40


@dataclasses.dataclass(frozen=True)
class Contents:
    """What is in a file over time. Moments are a frame's duration apart."""

    num_frames: int  # moments from the first frame to the last; 0 if not known
    missing: tuple[int, ...] = ()  # moments that the time stamps leave out
    start: float = 0.0  # seconds
    matte_problem: str = ""  # what is wrong with the levels, if it is a matte


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What a file says of itself; its number of frames can be wrong."""

    width: int  # as shown, that is turned
    height: int
    fps: float  # 0 if not stated
    contents: Contents


def probe(path: Path, kind: Kind) -> VideoInfo:
    """Reads a file's header and first frame.

    Args:
      path: A video, or for labels an .npz with `labels` [T, H, W] uint8.
      kind: What it holds.

    Raises:
      InputError: if they cannot be read, or the frame is to be shown at an angle.
    """
    if kind == "labels":
        with _open_maps(path) as (shape, _):
            return VideoInfo(shape[2], shape[1], 0.0, Contents(shape[0]))
    with _open_video(path) as (container, stream):
        fps = float(stream.average_rate or 0)
        num_frames = stream.frames
        if not num_frames and container.duration and fps:
            num_frames = round(container.duration / av.time_base * fps)
        start = float((stream.start_time or 0) * (stream.time_base or 0))
        frame = next(container.decode(stream), None)
        if frame is None:
            raise _unreadable(path, 0, None, num_frames)
        picture = _picture(path, frame, kind)
    if moments := _uneven_moments(path):
        fps = fps * (moments[-1] + 1) / len(moments)
        num_frames = moments[-1] + 1
    missing = _left_out(moments)
    levels = [matte_levels(picture)] if kind == "alpha" else []
    problem = say_wrong_levels(levels, is_whole=False)
    contents = Contents(num_frames, missing, start, problem)
    return VideoInfo(picture.shape[1], picture.shape[0], fps, contents)


def first_frame(path: Path, kind: Kind) -> np.ndarray:
    """Reads the first frame alone, as `decode` gives it.

    Raises:
      InputError: if it cannot be read.
    """
    if kind == "labels":
        with _open_maps(path) as (shape, frames):
            frame = next(frames, None)
            if frame is None:
                raise _unreadable(path, 0, None, shape[0])
            return frame
    with _open_video(path) as (container, stream):
        picture = next(container.decode(stream), None)
        if picture is None:
            raise _unreadable(path, 0, None, stream.frames)
        return _picture(path, picture, kind)


def decode(
    path: Path, kind: Kind, stride: int, on_frame: Callable[[np.ndarray], None]
) -> Contents:
    """Decodes a file from its beginning to its end.

    Args:
      path: As for `probe`.
      kind: What it holds.
      stride: Every how many moments `on_frame` is called, from the first on.
      on_frame: Takes a frame as `read_frames` gives it.

    Raises:
      InputError: if the file is damaged, or shorter than it says.
    """
    frames = read_frames(path, kind, stride)
    while True:
        try:
            frame = next(frames)
        except StopIteration as end:
            return end.value
        on_frame(frame)


def read_frames(
    path: Path, kind: Kind, stride: int = 1
) -> Generator[np.ndarray, None, Contents]:
    """Yields a file's frames one after the other.

    Args:
      path: As for `probe`.
      kind: What it holds.
      stride: Every how many moments a frame is given, from the first on.

    Returns:
      Frames in the file's resolution, turned as they are to be shown: uint8, [H, W, 3]
      for rgb, [H, W] otherwise. At a moment that is missing it is the next one's.

    Raises:
      InputError: if the file is damaged, or shorter than it says.
    """
    if kind == "labels":
        with _open_maps(path) as (shape, frames):
            for i, frame in enumerate(frames):
                if i % stride == 0:
                    yield frame
            return Contents(shape[0])
    moments = _uneven_moments(path)
    levels = []
    num_read, num_moments = 0, 0
    with _open_video(path, lambda: num_read) as (container, stream):
        stream.thread_type = "AUTO"
        num_stated = stream.frames
        start = float((stream.start_time or 0) * (stream.time_base or 0))
        for packet in container.demux(stream):
            # The decoder would paper over a packet that is cut short.
            if packet.is_corrupt:
                raise _unreadable(path, num_read, None, num_stated)
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise _unreadable(path, num_read, None, num_stated)
                end = 1 + (moments[num_read] if moments else num_read)
                due = sum(m % stride == 0 for m in range(num_moments, end))
                if due:
                    picture = _picture(path, frame, kind)
                    if kind == "alpha":
                        levels.append(matte_levels(picture))
                    for _ in range(due):
                        yield picture
                num_read, num_moments = num_read + 1, end
    if num_read == 0 or num_read < num_stated - 1:
        raise _unreadable(path, num_read, None, num_stated)
    problem = say_wrong_levels(levels, is_whole=True)
    missing = _left_out(moments[:num_read])
    return Contents(num_moments, missing, start, problem)


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


@contextlib.contextmanager
def _open_video(
    path: Path, num_read: Callable[[], int] = lambda: 0
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Opens a video; what goes wrong with it is an InputError."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise _unreadable(path, 0, None)
            yield container, container.streams.video[0]
    except av.error.FFmpegError as error:
        raise _unreadable(path, num_read(), error) from error


def _uneven_moments(path: Path) -> list[int]:
    """The moment of each frame in the order of time; empty if no gap is stated.

    Where frames are left out, their mean rate is not the rate of the time stamps.

    Raises:
      InputError: if more is left out than is there, or the file cannot be read.
    """
    with _open_video(path) as (container, stream):
        if not stream.frames or stream.average_rate == stream.base_rate:
            return []
        stamps = sorted(p.pts for p in container.demux(stream) if p.pts is not None)
    if len(stamps) < 3:
        return []
    apart = np.diff(stamps)
    usual = np.sort(apart)[(len(apart) - 1) // 2]
    moments = np.cumsum(np.maximum(1, np.round(apart / usual)))
    if moments[-1] == len(apart):
        return []
    if moments[-1] >= 2 * len(stamps):
        raise InputError(
            f"{path}: its time stamps leave out more frames than there are "
            f"({moments[-1] + 1:.0f} moments, {len(stamps)} frames). Write it with "
            "even time stamps, or cut it into sequences."
        )
    return [0, *moments.astype(int).tolist()]


def _left_out(moments: list[int]) -> tuple[int, ...]:
    """The numbers that lack between the first of `moments` and the last."""
    return tuple(sorted(set(range(moments[-1])) - set(moments))) if moments else ()


def _picture(path: Path, frame: av.VideoFrame, kind: Kind) -> np.ndarray:
    """A frame's pixels, turned as its display matrix says.

    The matrix takes (x, y) to (a x + c y, b x + d y): each of a, b, c, d is 0, 1 or -1
    for pictures that are turned by right angles or mirrored.

    Raises:
      InputError: for any other matrix.
    """
    pixels = frame.to_ndarray(format=_PIXEL_FORMATS[kind])
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return pixels
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if {abs(a), abs(d)} == {0} and {abs(b), abs(c)} == {_ONE}:
        pixels = pixels.swapaxes(0, 1)
        a, d = c, b
    elif {abs(a), abs(d)} != {_ONE} or {b, c} != {0}:
        angle = np.degrees(np.arctan2(-b, a))
        raise InputError(
            f"{path} is to be shown turned by {angle:.0f} degrees (display matrix "
            f"{a / _ONE:g} {b / _ONE:g} {c / _ONE:g} {d / _ONE:g}); expected right "
            "angles. Write its frames as they are to be seen, without a matrix."
        )
    pixels = pixels[:, ::-1] if a < 0 else pixels
    return np.ascontiguousarray(pixels[::-1] if d < 0 else pixels)


@contextlib.contextmanager
def _open_maps(path: Path) -> Iterator[tuple[tuple[int, ...], Iterator[np.ndarray]]]:
    """Opens the array `labels` [T, H, W] uint8 of an .npz: its shape and its maps."""
    with open_archive(path, "label maps", max_bytes=_MAX_MAP_BYTES) as archive:
        try:
            size = archive.getinfo("labels.npy").file_size
            member = archive.open("labels.npy")
            if np.lib.format.read_magic(member) != (1, 0):
                raise ValueError("'labels' is not of version 1.0 of .npy")
            shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(member)
            header = member.tell()
        except _DAMAGED as error:
            raise _unreadable(path, 0, error) from error
        if len(shape) != 3 or dtype != np.uint8 or is_fortran:
            raise InputError(
                f"{path}: 'labels' must be [T, H, W] uint8 in C order, but is "
                f"{shape} {dtype}. Write the label maps again."
            )
        pixels = shape[1] * shape[2]
        if pixels > _MAX_MAP_PIXELS or size != header + shape[0] * pixels:
            raise InputError(
                f"{path}: 'labels' claims {shape} uint8 in {size:,} bytes; expected as "
                f"many bytes, and maps of at most {_MAX_MAP_PIXELS:,} pixels. Nothing "
                "of it was unpacked; write it again."
            )

        def read_maps() -> Iterator[np.ndarray]:
            for index in range(shape[0]):
                try:
                    data = member.read(pixels)
                    if len(data) < pixels:
                        raise EOFError("it ends too early")
                except _DAMAGED as error:
                    raise _unreadable(path, index, error, shape[0]) from error
                yield np.frombuffer(data, np.uint8).reshape(shape[1:])

        with member:
            yield shape, read_maps()


_DAMAGED = (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)


def _unreadable(
    path: Path, num_read: int, error: Exception | None, num_stated: int = 0
) -> InputError:
    total = f" of {num_stated}" if num_stated else ""
    reason = f" ({getattr(error, 'strerror', None) or error})" if error else ""
    return InputError(
        f"{path} is cut short or damaged: {num_read}{total} frames could be "
        f"read{reason}. Copy or download it again."
    )
