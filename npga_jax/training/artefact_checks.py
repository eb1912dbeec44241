"""What avatar.npz must hold, as sentences, before anything is made of it."""

import math
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from npga_jax.core import InputError
from npga_jax.rasterizer import MAX_SIDE, sh

_ADVICE = "the file is damaged; export it again from its run"


def check_version(path: Path, version: Any, newest: int) -> None:
    """Raises InputError unless a file is of a format that this program reads."""
    if not _is_whole(version, 1):
        raise InputError(
            f"{path} is an avatar of format {version!r}; expected 1 to {newest}: "
            f"{_ADVICE}."
        )
    if version > newest:
        raise InputError(
            f"{path} is an avatar of format {version}; this program reads formats up "
            f"to {newest}. Use a later npga_jax."
        )


def check_header(path: Path, header: dict[str, Any]) -> None:
    """Looks at names, camera and provenance, but for the settings.

    Raises:
      InputError: the first that is not what it should be.
      KeyError: it is not there.
    """
    camera, provenance = header["camera"], header["provenance"]
    found = {
        "driving_model": header["driving_model"],
        "provenance/subject": provenance["subject"],
    }
    for name in ("driving_names", "own_parts"):
        texts = header[name]
        if not isinstance(texts, list):
            _refuse(path, name, texts, "a list")
        found |= {f"{name}[{i}]": text for i, text in enumerate(texts)}
    for name, text in found.items():
        if not isinstance(text, str):
            _refuse(path, name, text, "text")
    if not _is_whole(provenance["steps"], 0):
        _refuse(path, "provenance/steps", provenance["steps"], "a whole number")
    for name in ("width", "height"):
        if not _is_whole(camera[name], 1, MAX_SIDE):
            wanted = f"a whole number from 1 to {MAX_SIDE}"
            _refuse(path, f"camera/{name}", camera[name], wanted)
    fps = camera["fps"]
    if not isinstance(fps, int | float) or not 0 < fps < math.inf:
        _refuse(path, "camera/fps", fps, "a number above 0")


def check_arrays(
    path: Path,
    arrays: dict[str, np.ndarray],
    *,
    num_expr: int,
    num_features: int,
    sh_degree: int,
) -> None:
    """Looks at all arrays but the weights of networks, which only a method knows.

    Args:
      num_expr: length of the code.
      num_features: of each Gaussian; likewise `sh_degree`.

    Raises:
      InputError: the first that is not finite numbers of its shape.
      KeyError: it is not there.
    """
    means = arrays["params/gaussians/means"]
    n = len(means) if means.ndim else 0
    shapes: dict[str, tuple[int, ...]] = {
        "params/gaussians/means": (n, 3),
        "params/gaussians/quats": (n, 4),
        "params/gaussians/log_scales": (n, 3),
        "params/gaussians/logit_opacities": (n,),
        "params/gaussians/sh": (n, sh.num_sh_bases(sh_degree), 3),
        "params/gaussians/features": (n, num_features),
        "params/gaussians/bindings": (n, 2),
    }
    shapes |= {name: (num_expr,) for name in ("neutral", "code_mean", "code_std")}
    shapes |= {"neutral_pose": (4, 4), "camera/viewmat": (4, 4), "camera/K": (3, 3)}
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape:
            _refuse(path, name, f"of shape {array.shape}", f"{shape}")
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise InputError(f"{path}: {name} is not finite numbers; {_ADVICE}.")


def _is_whole(value: Any, low: int, high: float = math.inf) -> bool:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return is_number and low <= value <= high


def _refuse(path: Path, name: str, found: Any, wanted: str) -> NoReturn:
    raise InputError(f"{path}: {name} is {found}, expected {wanted}; {_ADVICE}.")
