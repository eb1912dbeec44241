"""Head models on disk: one .npz of plain arrays, which can hold no code.

Entries: `format_version`; `config` and `metadata`, JSON as text; `params/...`, one for
each array of the weights, named by its path in `model.init_params`.
"""

import dataclasses
import json
import math
from collections.abc import Set
from pathlib import Path
from typing import Any

import jax
import numpy as np

from npga_jax.core import InputError, Params, atomic_write, load_npz
from npga_jax.nphm.config import NPHMConfig
from npga_jax.nphm.model import HeadModel, init_params

FORMAT_VERSION = 2
"""Version 1 had three settings more, of a variant that is not supported."""
MAX_PARAMETERS = 2**28
"""Numbers in a model, 24 times the official one's."""

_WHAT = "a head model in .npz form"
_HEADER = ("format_version", "config", "metadata")
_PREFIX = "params/"
_ANCHORS = _PREFIX + "anchors_mean"
_STORED_DTYPES = (np.dtype("<f4"), np.dtype("<f2"))
_DROPPED_SETTINGS = ("mode", "lat_dim_geo_global", "lat_dim_app_global")

# Smallest and greatest value of the sizes. The greatest are far from any use; they keep
# a damaged file from asking for the memory of a data centre.
_LIMITS = {
    "num_anchors": (1, 4096),
    "num_symm_pairs": (0, 2048),
    "num_neighbors": (1, 4096),
    "num_hyper": (0, 64),
    "num_layers_geo": (1, 64),
    "num_layers_app": (1, 64),
    "num_layers_exp": (1, 64),
    "hidden_dim_app": (0, 16384),
}
_WIDTH_LIMITS = (1, 16384)
_MAX_BLEND_STD = 1e6


def check_config(cfg: NPHMConfig) -> None:
    """Refuses sizes that no network can have.

    Raises:
      InputError: naming the setting, its value and what is possible.
    """
    for field in dataclasses.fields(cfg):
        value = getattr(cfg, field.name)
        if field.name == "blend_std":
            if type(value) not in (int, float) or not 0 < value <= _MAX_BLEND_STD:
                raise InputError(
                    f"blend_std is {value!r}, expected more than 0 and at most "
                    f"{_MAX_BLEND_STD:g}."
                )
        else:
            low, high = _LIMITS.get(field.name, _WIDTH_LIMITS)
            if type(value) is not int or not low <= value <= high:
                raise InputError(
                    f"{field.name} is {value!r}, expected a whole number from {low} "
                    f"to {high}."
                )
    if cfg.num_neighbors > cfg.num_anchors:
        raise InputError(
            f"num_neighbors is {cfg.num_neighbors} with {cfg.num_anchors} anchors; "
            "expected at most as many as anchors."
        )
    if 2 * cfg.num_symm_pairs > cfg.num_anchors:
        raise InputError(
            f"num_symm_pairs is {cfg.num_symm_pairs} with {cfg.num_anchors} anchors; "
            "expected at most half as many."
        )
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(_template(cfg)))
    if count > MAX_PARAMETERS:
        raise InputError(
            f"the sizes make {count:,} parameters, expected at most {MAX_PARAMETERS:,}."
        )


def save_head_model(
    path: Path,
    model: HeadModel,
    metadata: dict[str, Any],
    *,
    dtype: np.typing.DTypeLike = np.float32,
) -> None:
    """Writes a model beside and renames, so that a reader never sees half a file.

    Args:
      path: the .npz to write; replaced if it is there.
      model: sizes and weights.
      metadata: where it comes from, as plain JSON without NaN.
      dtype: float32, or float16 for half the size. Anchors, which are positions, stay
        float32.

    Raises:
      InputError: weights are not as the sizes say, are not finite (in `dtype`), the
        metadata is no plain JSON, or the file cannot be written.
    """
    dtype = np.dtype(dtype)
    if dtype not in _STORED_DTYPES:
        raise InputError(f"weights are stored as float32 or float16, not {dtype}.")
    if path.suffix != ".npz":
        raise InputError(f"{path} does not end in .npz, as a head model must.")
    check_config(model.cfg)
    expected, found = _flat(_template(model.cfg)), _flat(model.params)
    _check_names(path, set(found), set(expected))
    arrays = {
        "format_version": np.asarray(FORMAT_VERSION, np.int64),
        "config": np.asarray(json.dumps(dataclasses.asdict(model.cfg))),
        "metadata": np.asarray(_metadata_text(metadata)),
    }
    for name, leaf in found.items():
        stored = np.float32 if name == _ANCHORS else dtype
        with np.errstate(over="ignore"):
            arrays[name] = np.asarray(leaf).astype(stored)
        if arrays[name].shape != expected[name].shape:
            raise InputError(
                f"{path} is not written: {name} has shape {arrays[name].shape}, "
                f"expected {expected[name].shape}."
            )
        _check_finite(path, name, arrays[name])
    with atomic_write(path, instead="give a file elsewhere") as file:
        np.savez(file, **arrays)


def load_head_model(path: Path) -> tuple[HeadModel, dict[str, Any]]:
    """Reads what `save_head_model` has written.

    Returns:
      The model, its weights float32 arrays of NumPy; and the metadata.

    Raises:
      InputError: the file is absent, damaged, of another version, or holds anything
        else than the weights that its own configuration asks for.
    """
    arrays = load_npz(path, _WHAT)
    missing = [name for name in _HEADER if name not in arrays]
    if missing:
        raise InputError(
            f"{path} is not {_WHAT}: it lacks {', '.join(missing)}. Make one with "
            "experiments/convert_prior.py."
        )
    version = arrays["format_version"]
    if version.shape != () or version not in range(1, FORMAT_VERSION + 1):
        raise InputError(
            f"{path} has format version {str(version)[:80]}, this program reads 1 to "
            f"{FORMAT_VERSION}; convert it again with experiments/convert_prior.py."
        )
    cfg = _read_config(path, arrays["config"], int(version))
    metadata = _read_json(path, "metadata", arrays["metadata"])
    template = _template(cfg)
    expected = _flat(template)
    _check_names(path, arrays.keys() - set(_HEADER), set(expected))
    leaves = []
    for name, leaf in expected.items():
        array = arrays[name]
        if array.shape != leaf.shape or array.dtype not in _STORED_DTYPES:
            raise InputError(
                f"{path}: {name} has shape {array.shape} and dtype {array.dtype}, "
                f"expected {leaf.shape} and float32 or float16."
            )
        _check_finite(path, name, array)
        leaves.append(array.astype(np.float32))
    params = jax.tree.unflatten(jax.tree.structure(template), leaves)
    return HeadModel(cfg, params), metadata


def _template(cfg: NPHMConfig) -> Params:
    """Shapes of a model's weights, without the weights."""
    anchors = jax.ShapeDtypeStruct((cfg.num_anchors, 3), np.float32)
    key = jax.ShapeDtypeStruct((2,), np.uint32)
    return jax.eval_shape(lambda k, a: init_params(k, cfg, a), key, anchors)


def _flat(params: Params) -> dict[str, Any]:
    return {
        _PREFIX + jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]
    }


def _check_names(path: Path, found: Set[str], expected: Set[str]) -> None:
    problems = [f"lacks {name}" for name in sorted(expected - found)]
    problems += [f"has an unknown {n[:80]!r}" for n in sorted(found - expected)]
    if problems:
        more = len(problems) - 8
        listed = ", ".join(problems[:8]) + (f", and {more} more" if more > 0 else "")
        raise InputError(
            f"{path}: its weights do not fit its configuration: it {listed}."
        )


def _check_finite(path: Path, name: str, array: np.ndarray) -> None:
    if not np.isfinite(array).all():
        raise InputError(
            f"{path}: {name} holds NaN or values too large for {array.dtype}."
        )


def _metadata_text(metadata: dict[str, Any]) -> str:
    try:
        text = json.dumps(metadata, allow_nan=False)
        if not isinstance(metadata, dict) or json.loads(text) != metadata:
            raise ValueError("it would not come back as it is")
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"the metadata cannot be stored ({error}); expected a dict of text, finite "
            "numbers, lists and dicts with text as keys."
        ) from error
    return text


def _read_json(path: Path, name: str, array: np.ndarray) -> dict[str, Any]:
    """An object of finite JSON, stored as a text array without axes."""
    try:
        if array.shape != () or array.dtype.kind != "U":
            raise ValueError(f"it has shape {array.shape} and dtype {array.dtype}")
        # NumPy's own text may hold letters that Python cannot, which crash it later.
        text = array.astype("<U").tobytes().decode("utf-32-le")
        value = json.loads(text.rstrip("\0"))
        if not isinstance(value, dict):
            raise ValueError(f"a {type(value).__name__} in place of an object")
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: {name} cannot be used: it is not text with a JSON object of "
            f"finite numbers ({error})."
        ) from error
    return value


def _read_config(path: Path, array: np.ndarray, version: int) -> NPHMConfig:
    values = _read_json(path, "config", array)
    if version == 1:
        if values.get("mode") == "global":
            raise InputError(
                f"{path} is of the ablation with one network for the whole head, which "
                "is not supported; use a model of the published form."
            )
        for name in _DROPPED_SETTINGS:
            values.pop(name, None)
    fields = {field.name for field in dataclasses.fields(NPHMConfig)}
    problems = [f"lacks {name}" for name in sorted(fields - values.keys())]
    problems += [f"has an unknown {n[:80]!r}" for n in values.keys() - fields]
    if problems:
        raise InputError(f"{path}: config {', '.join(problems[:8])}.")
    cfg = NPHMConfig(**values)
    try:
        check_config(cfg)
    except InputError as error:
        raise InputError(f"{path}: config cannot be used: {error}") from error
    return cfg
