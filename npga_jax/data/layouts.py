"""Which layout a subject's folder is in, by what lies there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from npga_jax.core import InputError
from npga_jax.data.settings import CaptureConfig

Layout = Literal["nersemble", "vhap", "nerfstudio", "colmap", "diffusion-avatars"]

_SIGNS = {
    "nersemble": "calibration/camera_params.json and sequences/SEQ/images/cam_*.mp4",
    "vhap": "transforms_train.json or transforms.json whose frames have camera_index",
    "nerfstudio": "transforms.json with frames of one moment",
    "colmap": "sparse/0/cameras.txt (or .bin) and images/",
    "diffusion-avatars": (
        "calibration/calibration_result.json and sequences/SEQ/timesteps/"
    ),
}
"""What each layout is recognised by, for messages."""

TRANSFORMS = (
    "transforms_train.json",
    "transforms_val.json",
    "transforms_test.json",
    "transforms.json",
)
"""Camera files of VHAP and nerfstudio."""

_COLMAP = ("sparse/0", "sparse")


def layout_of(folder: Path, cfg: CaptureConfig) -> Layout:
    """The layout that is asked for, or that the folder shows.

    Args:
      folder: The subject's.
      cfg: Its `layout` is taken where it is not "auto".

    Raises:
      InputError: the folder shows none or several.
    """
    if cfg.layout != "auto":
        return cfg.layout
    found = recognised(folder)
    if len(found) == 1:
        return found[0]
    there = ", ".join(sorted(p.name for p in folder.iterdir())[:12]) or "nothing"
    if found:
        raise InputError(
            f"{folder} looks like several layouts ({', '.join(found)}); it holds "
            f"{there}. Say which one to read with --capture.layout."
        )
    wanted = "; ".join(f"{name}: {sign}" for name, sign in _SIGNS.items())
    raise InputError(
        f"{folder} is in no layout that is read: it holds {there}; expected one of "
        f"{wanted}. Give the folder that holds these as --subject, or say which layout "
        "it is with --capture.layout."
    )


def recognised(folder: Path) -> tuple[Layout, ...]:
    """All layouts that a folder shows signs of."""
    signs: dict[Layout, Callable[[Path], bool]] = {
        "nersemble": _is_nersemble,
        "vhap": lambda f: bool(vhap_exports(f)),
        "nerfstudio": _is_nerfstudio,
        "colmap": lambda f: colmap_model(f) is not None,
        "diffusion-avatars": _is_diffusion_avatars,
    }
    return tuple(layout for layout in get_args(Layout) if signs[layout](folder))


def is_subject(folder: Path) -> bool:
    """Whether a folder is a subject's itself, and not one around some."""
    return any(x != "vhap" or _is_vhap(folder) for x in recognised(folder))


def vhap_exports(folder: Path) -> tuple[Path, ...]:
    """The folder itself if VHAP has exported to it, else the exports in it."""
    if _is_vhap(folder):
        return (folder,)
    inside = sorted(p for p in folder.iterdir() if p.is_dir())
    return tuple(p for p in inside if _is_vhap(p))


def colmap_model(folder: Path) -> Path | None:
    """The folder of COLMAP's cameras and images, text or binary."""
    for place in _COLMAP:
        for suffix in (".txt", ".bin"):
            if (folder / place / f"cameras{suffix}").is_file():
                return folder / place
    return None


def _is_nersemble(folder: Path) -> bool:
    if _is_diffusion_avatars(folder):
        return False
    named = folder / "calibration" / "camera_params.json"
    return named.is_file() or (folder / "sequences").is_dir()


def _is_diffusion_avatars(folder: Path) -> bool:
    if (folder / "calibration" / "calibration_result.json").is_file():
        return True
    return any(folder.glob("sequences/*/timesteps"))


def _is_vhap(folder: Path) -> bool:
    if (folder / "canonical_flame_param.npz").is_file():
        return any((folder / name).is_file() for name in TRANSFORMS)
    return any(_has_key(folder / name, "camera_index") for name in TRANSFORMS)


def _is_nerfstudio(folder: Path) -> bool:
    return (folder / "transforms.json").is_file() and not _is_vhap(folder)


def _has_key(path: Path, key: str) -> bool:
    """Whether the first frame of a camera file has a key; a broken file has none."""
    try:
        frames = json.loads(path.read_text(encoding="utf-8"))["frames"]
        return key in frames[0]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False
