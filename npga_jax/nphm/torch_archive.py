"""Reads files of `torch.save` without torch, and without running anything in them.

Such a file is a zip: `data.pkl` describes the objects, `data/0`, `data/1`, ... are the
numbers. A pickle is a program; here, a small interpreter goes through it that knows
only the two dozen opcodes `torch.save` writes and can build nothing but plain values
and descriptions of tensors. Python's own `pickle` takes no part: a subclass of its
Unpickler could refuse names, but not hostile memo indices (gigabytes of memory), nested
tuples as keys (hashing for years) or attributes set behind its back.

Sources: the format is that of torch.serialization and of CPython's pickletools.
"""

import contextlib
import dataclasses
import io
import math
import pickletools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from npga_jax.core import InputError
from npga_jax.nphm.zip_reader import ZipReader, open_zip

MAX_PICKLE_BYTES = 16 * 2**20
MAX_OPCODES = 500_000
"""The pickle of an official checkpoint has about 30,000."""

_MAX_AXES = 8
_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
_WHAT = "a checkpoint of torch.save"
_BFLOAT16 = "bfloat16"

_STORAGES = {
    "torch DoubleStorage": "f8",
    "torch FloatStorage": "f4",
    "torch HalfStorage": "f2",
    "torch BFloat16Storage": _BFLOAT16,
    "torch LongStorage": "i8",
    "torch IntStorage": "i4",
    "torch ShortStorage": "i2",
    "torch CharStorage": "i1",
    "torch ByteStorage": "u1",
    "torch BoolStorage": "?",
}
_ORDERED_DICT = "collections OrderedDict"
_REBUILD_TENSOR = "torch._utils _rebuild_tensor_v2"
_REBUILD_PARAMETER = "torch._utils _rebuild_parameter"
_SIZE = "torch Size"
_CALLABLE = {_ORDERED_DICT, _REBUILD_TENSOR, _REBUILD_PARAMETER, _SIZE}


@dataclasses.dataclass(frozen=True, slots=True)
class Tensor:
    """Where the numbers of a tensor lie; `TorchArchive.read` fetches them."""

    storage: str
    """Name of the entry below `data/`."""
    dtype: str
    storage_size: int
    """Numbers in the storage, which tensors may share."""
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """Both in numbers, not bytes."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Name:
    """One of the admitted global names. It only stands for what it names."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: str
    size: int


class _Refused(Exception):
    """Something in the pickle that a checkpoint does not need."""


class TorchArchive:
    """An open archive: its objects, and access to its tensors' numbers."""

    def __init__(self, archive: ZipReader):
        self._archive = archive
        names = archive.names
        found = [n for n in names if n.rpartition("/")[2] == "data.pkl"]
        if len(found) != 1:
            raise InputError(
                f"{archive.path} is not {_WHAT}: it has {len(found)} entries data.pkl, "
                "expected one."
            )
        self._prefix = found[0].removesuffix("data.pkl")
        self._names = set(names)
        self._storages = {}
        self._byte_order = self._read_byte_order()
        data = archive.read(found[0], MAX_PICKLE_BYTES)
        try:
            self.root = _interpret(data)
        except (_Refused, ValueError, IndexError) as error:
            raise InputError(
                f"{archive.path} cannot be used as {_WHAT}: {error}. Only tensors and "
                "plain values are read; the file is damaged or not what it should be."
            ) from error

    def _read_byte_order(self) -> str:
        name = f"{self._prefix}byteorder"
        if name not in self._names:
            return "<"  # Torch before 2.1 wrote none, and ran on no other machines.
        order = self._archive.read(name, 16)
        if order not in (b"little", b"big"):
            raise InputError(
                f"{self._archive.path}: its byte order is {order!r}, expected "
                "'little' or 'big'."
            )
        return "<" if order == b"little" else ">"

    def read(self, tensor: Tensor) -> np.ndarray:
        """The numbers of a tensor, in this machine's byte order.

        Args:
          tensor: a part of `root`; its place in the storage is checked already.

        Returns:
          An array of the tensor's shape and dtype; bfloat16 becomes float32.

        Raises:
          InputError: the storage is absent, damaged or not as large as it should be.
        """
        name = f"{self._prefix}data/{tensor.storage}"
        code = "u2" if tensor.dtype == _BFLOAT16 else tensor.dtype
        dtype = np.dtype(code).newbyteorder(self._byte_order)
        expected = tensor.storage_size * dtype.itemsize
        if name not in self._storages:
            if name not in self._names:
                raise InputError(f"{self._archive.path} lacks its entry {name[:80]!r}.")
            self._storages[name] = self._archive.read(name, expected)
        data = self._storages[name]
        if len(data) != expected:
            raise InputError(
                f"{self._archive.path}: its entry {name[:80]!r} has {len(data):,} "
                f"bytes, expected {expected:,}."
            )
        strides = tuple(stride * dtype.itemsize for stride in tensor.strides)
        start = tensor.offset * dtype.itemsize
        if math.prod(tensor.shape) == 0:
            array = np.zeros(tensor.shape, dtype)
        else:
            array = np.ndarray(tensor.shape, dtype, data, start, strides)
        array = np.array(array, dtype.newbyteorder("="), order="C")
        if tensor.dtype == _BFLOAT16:
            # The upper half of a float32.
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array


@contextlib.contextmanager
def open_torch_archive(path: Path) -> Iterator[TorchArchive]:
    """Opens a file that `torch.save` has written.

    Raises:
      InputError: there is none, it is of another kind or damaged, or its pickle asks
        for anything else than tensors and plain values.
    """
    with contextlib.suppress(OSError):  # What is wrong, `open_zip` says.
        _refuse_other_forms(path)
    with open_zip(path, _WHAT) as archive:
        yield TorchArchive(archive)


def _refuse_other_forms(path: Path) -> None:
    if not path.is_file():
        return
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(_LEGACY_START):
        raise InputError(
            f"{path} has the form that torch wrote before version 1.6, which is not "
            "read here. Load it with torch.load and write it with torch.save of a "
            "newer torch."
        )
    if start[257:262] == b"ustar":
        raise InputError(
            f"{path} is a tar that holds other files; unpack it. (The name of a "
            "MonoNPHM checkpoint ends in .tar, but it is none.)"
        )


def _interpret(data: bytes) -> Any:
    """The object that a pickle describes.

    Raises:
      _Refused: it asks for what is not admitted.
      ValueError, IndexError: it is not well-formed.
    """
    stack, marks, memo = [], [], {}

    def after_mark() -> list[Any]:
        start = marks.pop()
        values = stack[start:]
        del stack[start:]
        return values

    def top(kind: type) -> Any:
        if type(stack[-1]) is not kind:
            raise _Refused(f"{name} on a {type(stack[-1]).__name__}")
        return stack[-1]

    for name, argument in _opcodes(data):
        if name in _PUSHED:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(after_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            length = int(name[-1])
            stack[-length:] = [tuple(stack[-length:])]
        elif name in ("APPEND", "APPENDS"):
            values = after_mark() if name == "APPENDS" else [stack.pop()]
            top(list).extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            if name == "SETITEMS":
                values = after_mark()
            else:
                values = [stack.pop(-2), stack.pop()]
            _set_items(top(dict), values)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            if argument not in memo:
                raise _Refused("it recalls what it has not kept")
            stack.append(memo[argument])
        elif name == "GLOBAL":
            if argument not in _STORAGES and argument not in _CALLABLE:
                asked = argument.replace(" ", ".")[:80]
                raise _Refused(f"it asks for {asked!r}, which is refused")
            stack.append(_Name(argument))
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop()))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_call(stack.pop(), arguments))
        elif name == "BUILD":
            # Attributes of a state dict: versions of the modules, of no use here.
            stack.pop()
            top(dict)
    if len(stack) != 1 or marks:
        raise _Refused("its end comes too early")
    _refuse_cycles(stack[0])
    return stack[0]


_PUSHED = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_ADMITTED = {
    *_PUSHED,
    *_CONSTANTS,
    *("PROTO", "STOP", "MARK", "GLOBAL", "BINPERSID", "REDUCE", "BUILD"),
    *("EMPTY_DICT", "EMPTY_LIST", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("APPEND", "APPENDS", "SETITEM", "SETITEMS"),
    *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
}


def _opcodes(data: bytes) -> Iterator[tuple[str, Any]]:
    """Names and arguments of a pickle's opcodes. None is decoded if not admitted."""
    file = io.BytesIO(data)
    for _ in range(MAX_OPCODES):
        code = file.read(1)
        opcode = pickletools.code2op.get(code.decode("latin-1"))
        if opcode is None:
            raise _Refused("it is cut short" if not code else f"{code!r} is no opcode")
        if opcode.name not in _ADMITTED:
            raise _Refused(f"its opcode {opcode.name} is refused")
        if opcode.name == "GLOBAL":
            # Their reader would decode escapes, which a pickle's does not.
            lines = file.readline(), file.readline()
            argument = " ".join(line.decode("ascii").rstrip("\n") for line in lines)
        else:
            argument = opcode.arg.reader(file) if opcode.arg else None
        yield opcode.name, argument
        if opcode.name == "STOP":
            return
    raise _Refused(f"it has more than {MAX_OPCODES:,} opcodes")


def _set_items(target: dict, values: list[Any]) -> None:
    if len(values) % 2:
        raise _Refused("a dict has a key without a value")
    for key, value in zip(values[0::2], values[1::2], strict=True):
        # To hash nested tuples can take any time.
        if type(key) not in (str, int):
            raise _Refused(f"a dict has a {type(key).__name__} as key")
        target[key] = value


def _storage(identity: Any) -> _Storage:
    if type(identity) is tuple and len(identity) in (5, 6):
        tag, kind, key, _, size = identity[:5]
        if (
            tag == "storage"
            and type(kind) is _Name
            and kind.name in _STORAGES
            and type(key) is str
            and _is_count(size)
        ):
            return _Storage(key, _STORAGES[kind.name], size)
    raise _Refused("it describes a storage in an unknown way")


def _call(function: Any, arguments: Any) -> Any:
    """Stands for the call of an admitted function; nothing is called."""
    if type(function) is not _Name or type(arguments) is not tuple:
        raise _Refused("it calls what is no function")
    if function.name == _ORDERED_DICT and arguments == ():
        return {}
    if function.name == _REBUILD_TENSOR and len(arguments) in (6, 7):
        return _tensor(*arguments[:4])
    if (
        function.name == _REBUILD_PARAMETER
        and len(arguments) == 3
        and type(arguments[0]) is Tensor
    ):
        return arguments[0]
    if function.name == _SIZE and len(arguments) == 1 and _are_counts(arguments[0]):
        return arguments[0]
    raise _Refused(f"it calls {function.name.replace(' ', '.')} in an unknown way")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    if (
        type(storage) is not _Storage
        or not _is_count(offset)
        or not _are_counts(shape)
        or not _are_counts(strides)
        or len(shape) != len(strides)
    ):
        raise _Refused("it describes a tensor in an unknown way")
    size = math.prod(shape)
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    # A stride of 0 would let a small storage become a tensor of any size.
    if size > storage.size or (size and last >= storage.size):
        raise _Refused(
            f"a tensor of shape {shape}, strides {strides} and offset {offset} does "
            f"not lie within its storage of {storage.size} numbers"
        )
    return Tensor(storage.key, storage.dtype, storage.size, offset, shape, strides)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= sys.maxsize


def _are_counts(values: Any) -> bool:
    return (
        type(values) is tuple
        and len(values) <= _MAX_AXES
        and all(_is_count(value) for value in values)
    )


def _refuse_cycles(root: Any) -> None:
    """Refuses containers that contain themselves, at any depth."""
    open_ids, done_ids = set(), set()
    pending = [(root, False)]
    while pending:
        value, is_left = pending.pop()
        if is_left:
            open_ids.discard(id(value))
            done_ids.add(id(value))
        elif type(value) in (list, tuple, dict) and id(value) not in done_ids:
            if id(value) in open_ids:
                raise _Refused("a container in it contains itself")
            open_ids.add(id(value))
            pending.append((value, True))
            parts = value.values() if type(value) is dict else value
            pending.extend((part, False) for part in parts)
