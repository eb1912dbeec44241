"""Reads nerfstudio's folders of one moment: transforms.json and images."""

import re
from pathlib import Path

from npga_jax.core import InputError
from npga_jax.data.image_set import ImageSet, ImageView, intrinsics
from npga_jax.data.moment import moment_set
from npga_jax.data.settings import CaptureConfig
from npga_jax.data.transforms import (
    Frame,
    focal_lengths,
    image_size,
    read_frames,
    world_to_camera,
)

_CAMERA_NAME = re.compile(r"(?:cam(?:era)?_)?(.+)")


def find_nerfstudio(folder: Path, cfg: CaptureConfig) -> ImageSet:
    """Looks through a folder with transforms.json.

    Args:
      folder: The subject's.
      cfg: Has the unit of the world.

    Raises:
      InputError: the file is missing or damaged, its lenses distort, or its frames are
        of several moments.
    """
    path = folder / "transforms.json"
    frames = read_frames(path)
    times = {str(frame.values["time"]) for frame in frames if "time" in frame.values}
    if len(times) > 1:
        raise InputError(
            f"{path} is of {len(times)} moments; expected one, as of a rig that fires "
            "once. Bring videos into the layout of NeRSemble (docs/own-data.md)."
        )
    views: dict[str, ImageView] = {}
    for frame in frames:
        view = _view(frame)
        camera = camera_name(view.path.stem)
        if camera in views:
            # Of the same name, in another folder.
            camera = "_".join(view.path.with_suffix("").parts[-2:])
        if camera in views:
            raise InputError(
                f"{path} has two frames with the image {view.path}; expected one for "
                "each camera. Export it again."
            )
        views[camera] = view
    return moment_set(folder, views, unit=cfg.world_unit, notes=())


def camera_name(stem: str) -> str:
    """What a camera is called after its image: without "cam_"."""
    match = _CAMERA_NAME.fullmatch(stem)
    return match[1] if match else stem


def _view(frame: Frame) -> ImageView:
    image = frame.file("file_path")
    if not image.suffix:  # As Blender's data sets have it.
        image = image.with_suffix(".png")
    size = image_size(frame)
    focal = focal_lengths(frame, size)
    cx = frame.number_of("cx") if "cx" in frame.values else size[0] / 2
    cy = frame.number_of("cy") if "cy" in frame.values else size[1] / 2
    has_mask = frame.values.get("mask_path") is not None
    matte = frame.file("mask_path") if has_mask else None
    return ImageView(
        image, intrinsics(*focal, cx, cy), world_to_camera(frame), size, matte
    )
