"""Zips and .npz files of others: looked at before anything in them is inflated."""

import contextlib
import io
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from npga_jax.core.errors import InputError

# What `zipfile` and `np.load` are seen to raise for bytes that are not as they should
# be; RuntimeError is for encrypted entries.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    SyntaxError,
    tokenize.TokenError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    MemoryError,
    RecursionError,
    RuntimeError,
)


@contextlib.contextmanager
def open_archive(
    path: Path,
    what: str,
    *,
    max_bytes: int | None = None,
    advice: str = "Copy or make it again.",
) -> Iterator[zipfile.ZipFile]:
    """Opens a zip of which no entry is read yet; read them by `read_entry`.

    Args:
      path: the file.
      what: what it should be, for messages.
      max_bytes: most bytes that its entries may claim together; None for the file's
        own size, which is right where its writer never packs.
      advice: what to do if it is no zip, for the message.

    Raises:
      InputError: there is no such file, it is no zip, or its entries claim more.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected a file: {what}.")
    if not path.exists():
        raise InputError(f"there is no file {path}; expected {what}.")
    # A pipe or a device would be waited for.
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; expected {what}.")
    with contextlib.ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(path))
        except PermissionError as error:
            raise InputError(f"{path} may not be read ({error.strerror}).") from error
        except _DAMAGE as error:
            raise InputError(
                f"{path} cannot be read as {what} ({_reason(error)}): it is cut short, "
                f"damaged, or another kind of file. {advice}"
            ) from error
        most = path.stat().st_size if max_bytes is None else max_bytes
        claimed = sum(info.file_size for info in archive.infolist())
        if claimed > most:
            raise InputError(
                f"{path}: its entries claim {claimed:,} bytes, expected at most "
                f"{most:,} for {what}. Nothing of it was unpacked; get it anew."
            )
        if len(set(archive.namelist())) != len(archive.namelist()):
            raise InputError(f"{path} holds two entries of the same name; get it anew.")
        yield archive


def read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of one entry, as many as it claims, verified by its checksum.

    Raises:
      InputError: there is no such entry, or it is damaged.
    """
    if name not in archive.NameToInfo:
        raise InputError(f"{archive.filename} lacks its entry {name[:80]!r}.")
    try:
        data = archive.read(name)
        if len(data) != archive.getinfo(name).file_size:
            raise EOFError(f"only {len(data)} bytes")
        return data
    except _DAMAGE as error:
        raise InputError(
            f"{archive.filename}: its entry {name[:80]!r} cannot be read "
            f"({_reason(error)}): the file is cut short or damaged. Copy or download "
            "it again."
        ) from error


def load_npz(
    path: Path,
    what: str,
    *,
    max_bytes: int | None = None,
    names: Collection[str] | None = None,
) -> dict[str, np.ndarray]:
    """The arrays of an .npz of plain numbers and text, read whole.

    Args:
      path: the file, packed or not.
      what: what it should be, for messages.
      max_bytes: as for `open_archive`.
      names: arrays to read, of those that are there; None for all.

    Raises:
      InputError: it is no .npz, damaged, claims more bytes, or holds Python objects.
    """
    with open_archive(path, what, max_bytes=max_bytes) as archive:
        entries = {name.removesuffix(".npy"): name for name in archive.namelist()}
        return {
            name: parse_npy(read_entry(archive, entry), f"{path}: {name[:80]!r}")
            for name, entry in entries.items()
            if names is None or name in names
        }


def parse_npy(data: bytes, name: str) -> np.ndarray:
    """The array in the bytes of an .npy file.

    Args:
      data: the bytes.
      name: of the array, as the beginning of a message.

    Raises:
      InputError: they are none, are cut short, or hold Python objects.
    """
    try:
        if not data.startswith(b"\x93NUMPY"):
            raise ValueError("it is no .npy")
        return np.load(io.BytesIO(data), allow_pickle=False)
    except _DAMAGE as error:
        raise InputError(
            f"{name} cannot be used ({_reason(error)}); expected an array of plain "
            "numbers or text."
        ) from error


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
