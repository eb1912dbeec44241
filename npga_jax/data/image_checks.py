"""Whether the images of a set can be used together, and what is held out of them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from npga_jax.core import InputError
from npga_jax.data.capture import Capture, match_sequences
from npga_jax.data.findings import Findings
from npga_jax.data.image_capture import ImageCapture, is_same_aspect, picture_header
from npga_jax.data.image_set import ImageSet, ImageView, ViewKey
from npga_jax.data.pcd import read_pcd
from npga_jax.data.settings import CaptureConfig
from npga_jax.data.world import normal_sign, say_wrong_world

_USUAL = CaptureConfig()


def check_files(views: Mapping[ViewKey, ImageView]) -> None:
    """Makes sure that all files are there, with one look into each folder."""
    folders: dict[Path, set[str]] = {}
    for what, kind in (("path", "images"), ("matte", "mattes")):
        paths = [p for view in views.values() if (p := getattr(view, what)) is not None]
        for folder in {p.parent for p in paths} - folders.keys():
            there = folder.iterdir() if folder.is_dir() else ()
            folders[folder] = {p.name for p in there}
        missing = [p for p in paths if p.name not in folders[p.parent]]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(paths)} {kind} are missing, like "
                f"{missing[0]}. Copy or export them again, or leave their sequences or "
                "cameras out with --capture.ignore-sequences or "
                "--capture.ignore-cameras."
            )


def choose_size(
    views: Mapping[ViewKey, ImageView], cfg: CaptureConfig
) -> tuple[tuple[int, int], dict[ViewKey, ImageView]]:
    """The size (W, H) that images get; and the views, with mattes from alpha channels.

    The first image of each camera in each sequence is looked at.
    """
    firsts: dict[tuple[str, str], ImageView] = {}
    for (sequence, _, camera), view in views.items():
        firsts.setdefault((sequence, camera), view)
    headers = {view.path: picture_header(view.path) for view in firsts.values()}
    size = None
    for view in firsts.values():
        actual = headers[view.path][0]
        if not is_same_aspect(actual, view.size):
            raise InputError(
                f"{view.path} is {actual[0]}x{actual[1]}, but its camera is for "
                f"{view.size[0]}x{view.size[1]}: the aspect ratios differ. Write the "
                "images or the cameras again."
            )
        if cfg.width > actual[0]:
            raise InputError(
                f"--capture.width {cfg.width} is more than {view.path} has "
                f"({actual[0]}x{actual[1]}). Pass --capture.width {actual[0]} or less."
            )
        height = max(1, round(actual[1] * cfg.width / actual[0]))
        size = size or (cfg.width, height)
        if not is_same_aspect((cfg.width, height), size):
            raise InputError(
                f"{view.path} is {actual[0]}x{actual[1]}, unlike other images, which "
                f"are {size[0]}x{size[1]} when they are {cfg.width} wide. Use images "
                "of one shape, or leave its camera out with --capture.ignore-cameras."
            )
    assert size is not None, "no views"
    has_mattes = any(view.matte for view in firsts.values())
    if not has_mattes and all(alpha for _, alpha in headers.values()):
        return size, {k: v._replace(matte=v.path) for k, v in views.items()}
    return size, dict(views)


def all_have_mattes(views: Mapping[ViewKey, ImageView], out: Findings) -> bool:
    """Whether all images have mattes; some but not all is an error."""
    without = [key for key, view in views.items() if view.matte is None]
    if not without:
        return True
    if len(without) < len(views):
        sequence, frame, camera = without[0]
        raise InputError(
            f"{len(without)} of {len(views)} images have no matte, like camera "
            f"{camera} at frame {frame} of {sequence}: the background would count as "
            "part of the person there. Supply them, or pass --capture.no-mattes to "
            "use none at all."
        )
    out.notes.append(
        "There are no mattes: the background counts as part of the person."
    )
    return False


def hold_out(
    found: ImageSet, capture: Capture, cfg: CaptureConfig, out: Findings
) -> CaptureConfig:
    """Settings with what is held out where the usual names are not there."""
    sequence, camera = cfg.held_out_sequence, cfg.held_out_camera
    if sequence == _USUAL.held_out_sequence and not match_sequences(
        capture.sequences, sequence
    ):
        own = found.held_out_sequence
        sequence = own if own in capture.sequences else capture.sequences[-1]
        if len(capture.sequences) == 1:
            sequence = ""
            out.notes.append(
                "There is one sequence: none is held out, so that expressions are not "
                "tested."
            )
        else:
            out.notes.append(
                f"Held out is {sequence} (--capture.held-out-sequence takes another)."
            )
    if camera == _USUAL.held_out_camera and camera not in capture.cameras:
        own = found.held_out_camera
        camera = own if own in capture.cameras else _middle_camera(capture)
        out.notes.append(
            f"Held out is camera {camera} (--capture.held-out-camera takes another)."
        )
    return dataclasses.replace(cfg, held_out_sequence=sequence, held_out_camera=camera)


def _middle_camera(capture: Capture) -> str:
    """The camera whose optical axis is nearest to the mean of all."""
    first = capture.timesteps[0]
    axes = np.stack(
        [capture.camera(first, c).world2cam[2, :3] for c in capture.cameras]
    )
    return capture.cameras[int(np.argmax(axes @ axes.mean(axis=0)))]


def check_world(capture: ImageCapture, out: Findings) -> int:
    """Compares cameras, heads and the first cloud that is used: the sign of normals."""
    first = next((t for t in capture.timesteps if capture.has_points(t)), None)
    cloud = (
        None
        if first is None
        else read_pcd(capture.clouds[first.sequence, first.frame_id])
    )
    first = first or capture.timesteps[0]
    cameras = [capture.camera(first, c) for c in capture.cameras]
    heads = np.empty((0, 3))
    if capture.has_driving(first):
        heads = capture.tracks[first.sequence].world_from_head[:, :3, 3]
    wrong = say_wrong_world(cameras, cloud, heads, poses="the cameras' poses")
    if wrong:
        out.problems.append(f"{capture.root}: {wrong}")
    if cloud is None:
        return 1
    sign = normal_sign(cameras, cloud)
    if sign != 1:
        what = "are turned" if sign < 0 else "are not used: half of them point inward"
        out.notes.append(f"Normals of the point clouds {what}.")
    return sign
