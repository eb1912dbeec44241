"""Writes H.264 videos, whole or not at all."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from av.error import FFmpegError

from npga_jax.core import InputError, atomic_write

_imopen: Any = iio.imopen  # Its types know no plugin's name.

_CONTAINER_OPTIONS = {"movflags": "+faststart"}
"""The index comes first, so that browsers can start at once."""

_CODEC_OPTIONS = {"crf": "14"}
"""Visually lossless."""


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> int:
    """Writes an .mp4 that every player reads (H.264, yuv420p).

    The file appears under its name only when it is complete. Odd sizes get a white
    row or column, because the format halves its colours.

    Args:
      path: where to; folders are made.
      frames: [H, W, 3] uint8 each, all of one size; consumed one by one.
      fps: frames a second.

    Returns:
      The number of frames written.

    Raises:
      InputError: the file cannot be written.
      ValueError: there are no frames, or they differ in size or kind.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{path}: no frames to write.")
    count = 0
    with atomic_write(path) as file:
        with _input_errors(path):
            # By name: for the index to come first, the part is opened once more.
            writer: Any = _imopen(
                file.name,
                "w",
                plugin="pyav",
                extension=".mp4",
                container="mp4",
                options=_CONTAINER_OPTIONS,
            )
        try:
            with _input_errors(path):
                writer.init_video_stream("libx264", fps=fps, pixel_format="yuv420p")
                # imageio has no word for the quality.
                writer._video_stream.options = _CODEC_OPTIONS
            for frame in _chain(first, frames):
                frame = _check(path, frame, first.shape)
                with _input_errors(path):
                    writer.write_frame(frame)
                count += 1
        finally:
            with _input_errors(path):
                writer.close()
    return count


def _chain(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _check(path: Path, frame: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Pads a frame to even sides, or says what is wrong with it."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(
            f"{path}: a frame is {frame.shape} {frame.dtype}; expected [H, W, 3] uint8."
        )
    if frame.shape != shape:
        raise ValueError(f"{path}: a frame is {frame.shape}, the first is {shape}.")
    height, width = shape[:2]
    edges = ((0, height % 2), (0, width % 2), (0, 0))
    return np.ascontiguousarray(np.pad(frame, edges, constant_values=255))


@contextlib.contextmanager
def _input_errors(path: Path) -> Iterator[None]:
    """Turns what the file system or the encoder refuses into a sentence."""
    try:
        yield
    except (OSError, FFmpegError) as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); free some space, "
            "or choose another --output."
        ) from error
