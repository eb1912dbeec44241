"""Opens the head model that tracking uses, with the spread of its codes."""

import importlib.resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from npga_jax.core import InputError
from npga_jax.nphm import HeadModel, NPHMConfig, load_head_model, load_mononphm

# MonoNPHM's codes, where no codebook says better (statistics of NPHM's).
_OFFICIAL_GLOBAL_STD, _OFFICIAL_LOCAL_STD, _OFFICIAL_EXP_STD = 0.027, 0.0067, 0.05
_SMALLEST_SHARE = 0.05
"""Codes that no training head used are held to this share of the median deviation."""


class LoadedPrior(NamedTuple):
    """A head model and the spread of the codes it was trained with."""

    model: HeadModel
    geo_std: np.ndarray  # [lat_dim_geo]
    exp_std: np.ndarray  # [lat_dim_exp]
    name: str


def packaged_prior() -> Path:
    """The model that ships with the package."""
    return Path(str(importlib.resources.files("npga_jax.prior") / "default.npz"))


def open_prior(path: Path | None) -> LoadedPrior:
    """Opens a head model.

    Args:
      path: an .npz of this project, MonoNPHM's checkpoint or its folder; None for the
        packaged model.

    Raises:
      InputError: it is absent or damaged.
    """
    if path is None:
        path = packaged_prior()
        if not path.is_file():
            raise InputError(
                f"the packaged head model {path} is missing from this installation; "
                "install again, or give another one with --prior."
            )
    if path.suffix == ".npz" and not path.is_dir():
        model, metadata = load_head_model(path)
        spread = metadata.get("code_std", {})
        geo = _listed(path, spread, "geo", model.cfg.lat_dim_geo)
        exp = _listed(path, spread, "exp", model.cfg.lat_dim_exp)
    else:
        checkpoint = load_mononphm(path)
        model, books = checkpoint.model, checkpoint.codebooks or {}
        geo = books["geo"].std(axis=0) if "geo" in books else None
        exp = books["exp"].std(axis=0) if "exp" in books else None
    if geo is None:
        geo = _official_geo_std(model.cfg)
    if exp is None:
        exp = np.full(model.cfg.lat_dim_exp, _OFFICIAL_EXP_STD)
    return LoadedPrior(model, _floored(geo), _floored(exp), path.stem)


def _listed(path: Path, spread: Any, name: str, length: int) -> np.ndarray | None:
    """One deviation per component; a single number is taken for all of them."""
    if not isinstance(spread, dict) or name not in spread:
        return None
    try:
        values = np.asarray(spread[name], np.float64)
        values = np.broadcast_to(values, (length,)) if values.ndim == 0 else values
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.shape != (length,) or not (np.isfinite(values) & (values >= 0)).all():
        raise InputError(
            f"{path}: code_std.{name} in its metadata is not a list of {length} "
            "numbers >= 0."
        )
    return values


def _official_geo_std(cfg: NPHMConfig) -> np.ndarray:
    std = np.full(cfg.lat_dim_geo, _OFFICIAL_LOCAL_STD)
    std[: cfg.lat_dim_glob] = _OFFICIAL_GLOBAL_STD
    return std


def _floored(std: np.ndarray) -> np.ndarray:
    used = std[std > 0]
    floor = _SMALLEST_SHARE * np.median(used) if len(used) else 1e-3
    return np.maximum(std, floor).astype(np.float32)
