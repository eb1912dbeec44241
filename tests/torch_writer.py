"""A writer of what torch.save writes, so that no test needs torch."""

import dataclasses
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np

STORAGES = {
    "f8": "DoubleStorage",
    "f4": "FloatStorage",
    "f2": "HalfStorage",
    "i8": "LongStorage",
    "i4": "IntStorage",
    "i2": "ShortStorage",
    "i1": "CharStorage",
    "u1": "ByteStorage",
    "b1": "BoolStorage",
}


@dataclasses.dataclass
class Raw:
    """Opcodes that leave one object on the stack."""

    code: bytes


def name(dotted: str) -> Raw:
    module, _, attribute = dotted.rpartition(".")
    return Raw(f"c{module}\n{attribute}\n".encode())


def call(function: str, *arguments) -> Raw:
    return Raw(name(function).code + opcodes(arguments) + b"R")


def storage(key, size, kind="FloatStorage") -> Raw:
    identity = ("storage", name(f"torch.{kind}"), key, "cuda:0", size)
    return Raw(opcodes(identity) + b"Q")


def tensor(held: Raw, offset, shape, strides) -> Raw:
    hooks = call("collections.OrderedDict")
    return call(
        "torch._utils._rebuild_tensor_v2", held, offset, shape, strides, False, hooks
    )


def opcodes(value) -> bytes:
    match value:
        case Raw():
            return value.code
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int() if -(2**31) <= value < 2**31:
            return b"J" + struct.pack("<i", value)
        case int():
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(data)]) + data
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            data = value.encode()
            return b"X" + struct.pack("<I", len(data)) + data
        case tuple():
            return b"(" + b"".join(map(opcodes, value)) + b"t"
        case list():
            return b"](" + b"".join(map(opcodes, value)) + b"e"
        case dict():
            items = (part for item in value.items() for part in item)
            is_ordered = isinstance(value, OrderedDict)
            empty = call("collections.OrderedDict").code if is_ordered else b"}"
            return empty + b"(" + b"".join(map(opcodes, items)) + b"u"
    raise TypeError(type(value))


def write_archive(
    path: Path,
    root,
    arrays: dict[str, bytes] | None = None,
    *,
    byte_order: bytes | None = b"little",
) -> Path:
    """Writes `root`; arrays in it become tensors of their own storages."""
    entries = dict(arrays or {})

    def described(value):
        if isinstance(value, np.ndarray):
            key = str(len(entries))
            entries[key] = value.tobytes()
            strides = tuple(s // value.itemsize for s in value.strides)
            kind = STORAGES[value.dtype.str[1:]]
            return tensor(storage(key, value.size, kind), 0, value.shape, strides)
        if isinstance(value, dict):
            return type(value)((key, described(part)) for key, part in value.items())
        if isinstance(value, list | tuple):
            return type(value)(map(described, value))
        return value

    return write_code(path, opcodes(described(root)) + b".", entries, byte_order)


def write_code(
    path: Path,
    code: bytes,
    entries: dict[str, bytes] | None = None,
    byte_order: bytes | None = b"little",
) -> Path:
    """Writes an archive around the opcodes of a pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + code)
        if byte_order is not None:
            archive.writestr("archive/byteorder", byte_order)
        for key, data in (entries or {}).items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", b"3\n")
    return path
