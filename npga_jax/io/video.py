"""Writes H.264 videos, whole or not at all."""

import contextlib
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from npga_jax.core import InputError, atomic_write

_CONTAINER_OPTIONS = {"movflags": "+faststart"}
"""The index comes first, so that browsers can start at once."""

_CODEC_OPTIONS = {"crf": "14"}
"""Visually lossless."""


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> int:
    """Writes an .mp4 that every player reads (H.264, yuv420p).

    The file appears under its name only when it is complete. Odd sizes get a white
    row or column, because the format halves its colours.

    Args:
        path: Where to; folders are made.
        frames: [H, W, 3] uint8 each, all of one size; consumed one by one.
        fps: Frames a second.

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
            container = av.open(
                file.name, "w", format="mp4", options=_CONTAINER_OPTIONS
            )
        try:
            with _input_errors(path):
                stream = _add_stream(container, first, fps)
            for frame in _chain(first, frames):
                picture = av.VideoFrame.from_ndarray(
                    _check(path, frame, first.shape), format="rgb24"
                )
                with _input_errors(path):
                    container.mux(stream.encode(picture))
                count += 1
            with _input_errors(path):
                container.mux(stream.encode(None))
        finally:
            with _input_errors(path):
                container.close()
    return count


def _add_stream(container: av.container.OutputContainer, frame: np.ndarray, fps: float):
    rate = Fraction(fps).limit_denominator(1001)
    stream = container.add_stream("libx264", rate=rate, options=_CODEC_OPTIONS)
    stream.width = frame.shape[1] + frame.shape[1] % 2
    stream.height = frame.shape[0] + frame.shape[0] % 2
    stream.pix_fmt = "yuv420p"
    return stream


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
    except (OSError, av.FFmpegError) as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); free some space, "
            "or choose another --output."
        ) from error
