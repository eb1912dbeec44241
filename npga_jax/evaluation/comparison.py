"""Pictures of truth beside rendering: video frames and a sheet of stills."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from npga_jax.data import Capture, Split, Views
from npga_jax.evaluation.scoring import spread
from npga_jax.evaluation.views import RenderFn, ground_truth, render_cameras
from npga_jax.io import write_png, write_video

ERROR_GAIN = 5.0
"""The error map saturates at a mean absolute error of 1 / ERROR_GAIN."""

_SHEET_COLUMNS = 6
_CAPTION_HEIGHT = 20
_HEAT = np.array(
    [[0, 0, 0], [70, 10, 100], [200, 45, 70], [250, 150, 30], [255, 255, 200]], float
)
"""Colours of errors, evenly spaced from none to saturation."""


def write_comparisons(
    render_fn: RenderFn,
    capture: Capture,
    split: Split,
    folder: Path,
    *,
    progress: bool = True,
) -> list[Path]:
    """Writes videos of truth, rendering and error, and a sheet of stills.

    Self-reenactment is shown from the held-out camera and from the one that looks
    from furthest aside; novel views from the held-out camera.

    Returns:
      The files written.

    Raises:
      InputError: a file cannot be written.
    """
    front = (split.novel_view or split.self_reenactment)[0].cameras[0]
    side = _camera_furthest_aside(capture, split.self_reenactment, front)
    jobs = [("novel_view", front), ("self_reenactment", front)]
    if side is not None:
        jobs.append(("self_reenactment", side))
    paths = []
    rows: list[tuple[str, list[np.ndarray]]] = []
    for name, camera in jobs:
        views = [v for v in getattr(split, name) if camera in v.cameras]
        if not views:
            continue
        path = folder / f"{name}_{camera}.mp4"
        stills: list[tuple[np.ndarray, np.ndarray]] = []
        frames = _comparison_frames(render_fn, capture, views, camera, stills)
        write_video(path, frames, capture.fps)
        paths.append(path)
        if camera == front:
            title = f"{name.replace('_', ' ')}, camera {camera}"
            rows.append((f"{title}: truth", [truth for truth, _ in stills]))
            rows.append((f"{title}: rendering", [picture for _, picture in stills]))
        if progress:
            print(f"wrote {path}", file=sys.stderr)
    if rows:
        path = folder / "frames.png"
        write_sheet(path, rows, columns=max(len(images) for _, images in rows))
        paths.append(path)
    return paths


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Rounds an image in [0, 1] to 8 bits."""
    return (np.clip(np.asarray(image), 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def error_heat_map(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Mean absolute error over the channels, times `ERROR_GAIN`, in false colours.

    Args:
      pred: [H, W, 3] in [0, 1].
      target: [H, W, 3] in [0, 1].

    Returns:
      [H, W, 3] uint8: black where equal, over red to pale yellow.
    """
    error = np.abs(np.asarray(pred) - np.asarray(target)).mean(-1)
    level = np.clip(ERROR_GAIN * error, 0.0, 1.0)
    stops = np.linspace(0.0, 1.0, len(_HEAT))
    channels = [np.interp(level, stops, _HEAT[:, i]) for i in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def side_by_side(pred: np.ndarray, target: np.ndarray, caption: str) -> np.ndarray:
    """Truth, rendering and error map in a row, under a line of text.

    Args:
      pred: [H, W, 3] in [0, 1].
      target: [H, W, 3] in [0, 1].
      caption: Which frame this is.

    Returns:
      [H + 20, 3 W, 3] uint8.
    """
    return captioned_row(
        [to_uint8(target), to_uint8(pred), error_heat_map(pred, target)],
        [f"truth   {caption}", "rendering", f"error x {ERROR_GAIN:g}"],
    )


def captioned_row(images: Sequence[np.ndarray], captions: Sequence[str]) -> np.ndarray:
    """Images in a row, each under a line of text.

    Args:
      images: [H, W, 3] uint8 each, all of one height.
      captions: A line for each image.

    Returns:
      [H + 20, sum of W, 3] uint8.
    """
    left = np.cumsum([0, *(image.shape[1] for image in images)])
    texts = [(int(x) + 6, text) for x, text in zip(left[:-1], captions, strict=True)]
    strip = _caption_strip(int(left[-1]), texts)
    return np.concatenate([strip, np.concatenate(images, axis=1)])


def fit_into(image: np.ndarray, *, width: int, height: int) -> np.ndarray:
    """Scales an image as a whole, and centres it on white.

    Args:
      image: [H, W, 3] uint8.
      width: Of the result.
      height: Of the result.

    Returns:
      [height, width, 3] uint8.
    """
    zoom = min(width / image.shape[1], height / image.shape[0])
    size = (max(round(image.shape[1] * zoom), 1), max(round(image.shape[0] * zoom), 1))
    scaled = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    canvas = np.full((height, width, 3), 255, np.uint8)
    top, left = (height - scaled.shape[0]) // 2, (width - scaled.shape[1]) // 2
    canvas[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return canvas


def write_sheet(
    path: Path, rows: Sequence[tuple[str, Sequence[np.ndarray]]], columns: int
) -> None:
    """Writes a sheet of stills as a .png: a captioned row of images per entry.

    Args:
      path: Where to.
      rows: Caption and images [H, W, 3] uint8 of each row, all of one size.
      columns: Images per row; shorter rows are filled up with white.

    Raises:
      InputError: the file cannot be written.
    """
    height, width = next(images[0].shape[:2] for _, images in rows if images)
    lines = []
    for caption, images in rows:
        blank = np.full((height, width, 3), 255, np.uint8)
        cells = [*images, *[blank] * (columns - len(images))]
        lines.append(_caption_strip(columns * width, [(6, caption)]))
        lines.append(np.concatenate(cells[:columns], axis=1))
    write_png(path, np.concatenate(lines))


def _caption_strip(width: int, texts: Sequence[tuple[int, str]]) -> np.ndarray:
    strip = Image.new("RGB", (width, _CAPTION_HEIGHT), "white")
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default(12)
    for x, text in texts:
        draw.text((x, 2), text, fill="black", font=font)
    return np.asarray(strip)


def _comparison_frames(
    render_fn: RenderFn,
    capture: Capture,
    views: Sequence[Views],
    camera: str,
    stills: list[tuple[np.ndarray, np.ndarray]],
) -> Iterator[np.ndarray]:
    """Yields frames of the video, and appends some to `stills` (truth, rendering)."""
    kept = spread(_SHEET_COLUMNS, len(views))
    for i, (timestep, _) in enumerate(views):
        pred = render_cameras(render_fn, capture, Views(timestep, (camera,)))[0]
        target = ground_truth(capture, timestep, camera)
        if i in kept:
            stills.append((to_uint8(target), to_uint8(pred)))
        yield side_by_side(pred, target, f"{timestep.sequence} {timestep.frame_id}")


def _camera_furthest_aside(
    capture: Capture, views: Sequence[Views], front: str
) -> str | None:
    """The camera whose optical axis makes the largest angle with that of `front`."""
    others = [c for c in (views[0].cameras if views else ()) if c != front]
    if not others:
        return None
    timestep = views[0].timestep
    axis = capture.camera(timestep, front).world2cam[2, :3]
    return min(
        others, key=lambda c: float(capture.camera(timestep, c).world2cam[2, :3] @ axis)
    )
