"""Opens MonoNPHM's official checkpoints."""

import re
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from npga_jax.core import InputError, parse_npy
from npga_jax.nphm.config import NPHMConfig, config_from_official
from npga_jax.nphm.model import HeadModel
from npga_jax.nphm.official import params_from_official
from npga_jax.nphm.storage import check_config
from npga_jax.nphm.torch_archive import Tensor, TorchArchive, open_torch_archive

CONFIG_FILE = "configs.yaml"
_CHECKPOINT_NAME = re.compile(r"checkpoint_epoch_(\d+)\.tar")
_MAX_CONFIG_BYTES = 32 * 2**10
_MAX_CONFIG_DEPTH = 20
_MAX_NPY_HEADER = 256
"""Bytes before the numbers of an .npy file; NumPy makes them 128."""


class OfficialCheckpoint(NamedTuple):
    """What a checkpoint of MonoNPHM's training holds, but for its optimizers."""

    model: HeadModel
    codebooks: dict[str, np.ndarray] | None
    """Codes of the training's heads and scans: geo and app [heads, D], exp [scans, D];
    None if they were taken out."""
    epoch: int
    path: Path
    """The file that was read."""


def load_mononphm(
    path: Path, config: Path | None = None, anchors: Path | None = None
) -> OfficialCheckpoint:
    """Reads an official checkpoint. Torch is not needed and nothing in it is run.

    Args:
      path: checkpoint_epoch_*.tar, or a folder that holds some (or whose subfolder
        `checkpoints` does): that of the highest epoch is taken.
      config: MonoNPHM's configs.yaml; default: beside the checkpoint or a folder above.
      anchors: [n, 3] mean anchors, NPHM units, .npy; default: anchors_<n>.npy beside
        the checkpoint or a folder above.

    Raises:
      InputError: a file is absent or damaged, or the weights are not those that the
        configuration describes.
    """
    path = find_checkpoint(path)
    cfg = _read_config(config or _find_config(path))
    anchors_mean = _read_anchors(anchors or _find_anchors(path, cfg), cfg)
    with open_torch_archive(path) as archive:
        root = archive.root
        if not isinstance(root, dict):
            raise InputError(f"{path} holds no dict, as MonoNPHM's checkpoints do.")
        states = {
            part: _read_tensors(archive, root, part, path)
            for part in ("id_decoder", "ex_decoder")
        }
        try:
            params = params_from_official(states, anchors_mean, cfg)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        codebooks = None
        if root.get("latent_codes") is not None:
            tables = _read_tensors(archive, root, "latent_codes", path)
            codebooks = _read_codebooks(tables, cfg, path)
    epoch = root.get("epoch")
    if type(epoch) is not int or epoch < 0:
        raise InputError(
            f"{path}: its entry epoch is no whole number, as MonoNPHM writes it."
        )
    return OfficialCheckpoint(HeadModel(cfg, params), codebooks, epoch, path)


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a path means: itself, or the newest in a folder.

    Raises:
      InputError: there is none.
    """
    if not path.exists():
        raise InputError(
            f"there is no {path}; expected MonoNPHM's checkpoint_epoch_*.tar, a folder "
            "that holds it, or an .npz of experiments/convert_prior.py."
        )
    if not path.is_dir():
        return path
    found = [
        (int(match[1]), file)
        for folder in (path, path / "checkpoints")
        if folder.is_dir()
        for file in folder.iterdir()
        if (match := _CHECKPOINT_NAME.fullmatch(file.name))
    ]
    if not found:
        raise InputError(
            f"{path} holds no checkpoint_epoch_*.tar, nor does a folder `checkpoints` "
            "in it; give the file itself if it has another name."
        )
    return max(found)[1]


def _find_beside(checkpoint: Path, name: str) -> Path | None:
    folder = checkpoint.absolute().parent
    for candidate in (folder / name, folder.parent / name):
        if candidate.is_file():
            return candidate
    return None


def _find_config(checkpoint: Path) -> Path:
    found = _find_beside(checkpoint, CONFIG_FILE)
    if found is None:
        raise InputError(
            f"there is no {CONFIG_FILE} beside {checkpoint} or one folder above; it is "
            "published with the checkpoint and says how large its networks are. Put it "
            "there or give it by --config."
        )
    return found


def _find_anchors(checkpoint: Path, cfg: NPHMConfig) -> Path:
    name = f"anchors_{cfg.num_anchors}.npy"
    found = _find_beside(checkpoint, name)
    if found is None:
        raise InputError(
            f"there is no {name} beside {checkpoint} or one folder above. The mean "
            f"anchors are not part of a checkpoint: {name} is in the folder assets/ of "
            "the MonoNPHM repository. Put it there or give it by --anchors."
        )
    return found


def _read_small(path: Path, max_bytes: int, what: str) -> bytes:
    if not path.is_file():
        raise InputError(f"there is no file {path}; expected {what}.")
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    if len(data) > max_bytes:
        raise InputError(f"{path} is larger than {max_bytes:,} bytes; expected {what}.")
    return data


def _read_config(path: Path) -> NPHMConfig:
    data = _read_small(path, _MAX_CONFIG_BYTES, f"MonoNPHM's {CONFIG_FILE}")
    try:
        official = _parse_yaml(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")
        raise InputError(
            f"{path} cannot be read ({reason}); expected MonoNPHM's {CONFIG_FILE}."
        ) from error
    try:
        cfg = config_from_official(official)
        check_config(cfg)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: {error}") from error
    return cfg


def _parse_yaml(data: bytes) -> Any:
    """YAML of plain values.

    Raises:
      yaml.YAMLError, ValueError, RecursionError: it is none, or uses more than that.
    """
    depth = 0
    for token in yaml.scan(data, Loader=yaml.SafeLoader):
        # A few aliases can stand for more than any memory holds.
        if isinstance(token, yaml.AliasToken | yaml.TagToken):
            raise ValueError("it has aliases or tags, which the official one lacks")
        name = type(token).__name__
        depth += name.endswith("StartToken") - name.endswith("EndToken")
        if depth > _MAX_CONFIG_DEPTH:
            raise ValueError(f"it is nested more than {_MAX_CONFIG_DEPTH} deep")
    return yaml.safe_load(data)


def _read_anchors(path: Path, cfg: NPHMConfig) -> np.ndarray:
    shape = (cfg.num_anchors, 3)
    what = f"the mean anchors, an .npy of shape {shape}"
    data = _read_small(path, 8 * 3 * cfg.num_anchors + _MAX_NPY_HEADER, what)
    anchors = parse_npy(data, str(path))
    if anchors.shape != shape or anchors.dtype.kind != "f":
        raise InputError(
            f"{path} has shape {anchors.shape} and dtype {anchors.dtype}; expected "
            f"{what}, of floats."
        )
    if not np.isfinite(anchors).all():
        raise InputError(f"{path} holds NaN or infinite values; expected {what}.")
    return anchors.astype(np.float32)


def _read_tensors(
    archive: TorchArchive, root: dict[str, Any], part: str, path: Path
) -> dict[str, np.ndarray]:
    """A state dict, as arrays."""
    state = root.get(part)
    if not isinstance(state, dict):
        raise InputError(f"{path} has no state dict {part}, as MonoNPHM's have.")
    for name, tensor in state.items():
        # Names are printed where they are wrong.
        if type(name) is not str or not name.isprintable() or len(name) > 200:
            raise InputError(f"{path}: {part} has a key that is no name.")
        if type(tensor) is not Tensor:
            raise InputError(f"{path}: {part}.{name} is no tensor.")
    return {name: archive.read(tensor) for name, tensor in state.items()}


def _read_codebooks(
    tables: dict[str, np.ndarray], cfg: NPHMConfig, path: Path
) -> dict[str, np.ndarray]:
    dims = {"geo": cfg.lat_dim_geo, "exp": cfg.lat_dim_exp}
    if cfg.has_color:
        dims["app"] = cfg.lat_dim_app
    codebooks = {}
    for name, dim in dims.items():
        key = f"codebook.{name}.embedding.weight"
        table = tables.get(key)
        if table is None:
            raise InputError(f"{path}: latent_codes lacks {key}.")
        if table.ndim != 2 or table.shape[1] != dim or table.dtype.kind != "f":
            raise InputError(
                f"{path}: latent_codes.{key} has shape {table.shape} and dtype "
                f"{table.dtype}, expected (n, {dim}) floats."
            )
        codebooks[name] = table.astype(np.float32)
        if not np.isfinite(codebooks[name]).all():
            raise InputError(
                f"{path}: latent_codes.{key} holds NaN or infinite values."
            )
    return codebooks
