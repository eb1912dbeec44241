"""Reads files of `torch.save` without torch, and without running anything in them.

Such a file is a zip: `data.pkl` describes the objects, `data/0`, `data/1`, ... are the
numbers. The pickle can build plain values and descriptions of tensors; numbers are read
when they are asked for, and only as many as the description says.

Source: the format is that of torch.serialization.
"""

import contextlib
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from npga_jax.core import InputError, load_restricted, open_archive, read_entry

MAX_PICKLE_BYTES = 16 * 2**20
"""The pickle of an official checkpoint has about 100 kB."""

_WHAT = "a checkpoint of torch.save"
_OTHER_FORMS = (
    "Get it anew; if torch before version 1.6 has written it, load it with torch.load "
    "and write it with torch.save of a newer one; if it is a tar of other files, "
    "unpack it."
)
_BFLOAT16 = "bfloat16"
_MAX_AXES = 8
_MOST = 2**40
_STORAGES = {
    ("torch", "DoubleStorage"): "f8",
    ("torch", "FloatStorage"): "f4",
    ("torch", "HalfStorage"): "f2",
    ("torch", "BFloat16Storage"): _BFLOAT16,
    ("torch", "LongStorage"): "i8",
    ("torch", "IntStorage"): "i4",
    ("torch", "ShortStorage"): "i2",
    ("torch", "CharStorage"): "i1",
    ("torch", "ByteStorage"): "u1",
    ("torch", "BoolStorage"): "?",
}


class _Storage(NamedTuple):
    """Numbers that tensors may share."""

    key: str
    """Name of the entry below `data/`."""
    dtype: str
    size: int


class Tensor(NamedTuple):
    """Where the numbers of a tensor lie; `TorchArchive.read` fetches them."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """Both in numbers, not bytes."""


class _StateDict(dict):
    """Takes the place of OrderedDict; what is set on it (modules' versions) is lost."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


def _storage(identity: Any) -> _Storage:
    tag, dtype, key, _, size = identity[:5]
    if tag != "storage" or dtype not in _STORAGES.values() or not _is_count(size):
        raise ValueError("it describes a storage in an unknown way")
    return _Storage(str(key), dtype, size)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any):
    counts = (offset, *shape, *strides)
    if type(storage) is not _Storage or not all(_is_count(n) for n in counts):
        raise ValueError("it describes a tensor in an unknown way")
    ends = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
    is_outside = 0 not in shape and offset + sum(ends) >= storage.size
    # A stride of 0 would let a small storage become a tensor of any size.
    is_outside |= math.prod(shape) > storage.size
    is_outside |= math.prod(n or 1 for n in shape) > _MOST or len(shape) > _MAX_AXES
    if is_outside:
        raise ValueError(
            f"a tensor of shape {shape}, strides {strides} and offset {offset} does "
            f"not lie within its storage of {storage.size} numbers"
        )
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MOST


_ALLOWED = {
    **_STORAGES,
    ("collections", "OrderedDict"): _StateDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): tuple,
}


class TorchArchive:
    """An open archive: its objects, and access to its tensors' numbers."""

    def __init__(self, archive: zipfile.ZipFile, path: Path):
        names = archive.namelist()
        found = [name for name in names if Path(name).name == "data.pkl"]
        if len(found) != 1:
            raise InputError(
                f"{path} is not {_WHAT}: it has {len(found)} entries data.pkl, "
                "expected one."
            )
        self._archive, self._path = archive, path
        self._prefix = found[0].removesuffix("data.pkl")
        self._order = "<"  # Torch before 2.1 says nothing, and ran on no other machine.
        if f"{self._prefix}byteorder" in names:
            order = self._read(f"{self._prefix}byteorder", 16)
            if order not in (b"little", b"big"):
                raise InputError(
                    f"{path}: its byte order is {order!r}, expected 'little' or 'big'."
                )
            self._order = "<" if order == b"little" else ">"
        data = self._read(found[0], MAX_PICKLE_BYTES)
        self.root = load_restricted(data, str(path), _ALLOWED, persistent_load=_storage)

    def _read(self, name: str, most: int) -> bytes:
        info = self._archive.NameToInfo.get(name)
        if info is not None and info.file_size > most:
            raise InputError(
                f"{self._path}: its entry {name[:80]!r} has {info.file_size:,} bytes, "
                f"expected at most {most:,}."
            )
        return read_entry(self._archive, name)

    def read(self, tensor: Tensor) -> np.ndarray:
        """The numbers of a tensor, in this machine's byte order.

        Args:
          tensor: a part of `root`; its place in the storage is checked already.

        Returns:
          An array of the tensor's shape and dtype; bfloat16 becomes float32.

        Raises:
          InputError: the storage is absent, damaged or not as large as it should be.
        """
        key, kind, size = tensor.storage
        dtype = np.dtype("u2" if kind == _BFLOAT16 else kind)
        expected = size * dtype.itemsize
        data = self._read(f"{self._prefix}data/{key}", expected)
        if len(data) != expected:
            raise InputError(
                f"{self._path}: its entry data/{key[:80]} has {len(data):,} bytes, "
                f"expected {expected:,}."
            )
        stored = np.frombuffer(data, self._order + dtype.str[1:])
        strides = [stride * dtype.itemsize for stride in tensor.strides]
        view = np.lib.stride_tricks.as_strided
        array = view(stored[tensor.offset :], tensor.shape, strides).astype(dtype, "C")
        if kind == _BFLOAT16:  # The upper half of a float32.
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array


@contextlib.contextmanager
def open_torch_archive(path: Path) -> Iterator[TorchArchive]:
    """Opens a file that `torch.save` has written.

    Raises:
      InputError: there is none, it is of another kind or damaged, or its pickle asks
        for anything else than tensors and plain values.
    """
    with open_archive(path, _WHAT, advice=_OTHER_FORMS) as archive:
        yield TorchArchive(archive, path)
