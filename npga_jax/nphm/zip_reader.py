"""Reads entries of a zip that may be damaged or hostile, in bounded memory."""

import contextlib
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from npga_jax.core import InputError

MAX_DIRECTORY_BYTES = 4 * 2**20
"""Size of the table of contents: about 50,000 entries, which ten checkpoints have."""

# What `zipfile` is seen to raise for bytes that are not as they should be.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    OverflowError,
    RuntimeError,  # Encrypted entries, and NotImplementedError.
)


class ZipReader:
    """The entries of an open zip, by name."""

    def __init__(self, archive: zipfile.ZipFile, path: Path):
        self._archive = archive
        self._entries = {info.filename: info for info in archive.infolist()}
        self._bytes_left = path.stat().st_size
        self.path = path
        if len(self._entries) != len(archive.infolist()):
            raise InputError(f"{path} holds two entries of the same name; get it anew.")

    @property
    def names(self) -> list[str]:
        return list(self._entries)

    def read(self, name: str, max_bytes: int) -> bytes:
        """An entry's bytes, verified by its checksum. Each is read at most once.

        Args:
          name: one of `names`.
          max_bytes: what the caller can make use of.

        Raises:
          InputError: the entry is larger, damaged, or packed in an unusual way.
        """
        info = self._entries[name]
        if info.file_size > max_bytes:
            raise InputError(
                f"{self.path}: its entry {name[:80]!r} claims {info.file_size:,} "
                f"bytes, expected at most {max_bytes:,}; get it anew."
            )
        # What is not compressed cannot be larger than the file.
        if info.compress_type != zipfile.ZIP_STORED:
            raise InputError(
                f"{self.path}: its entry {name[:80]!r} is compressed, which such files "
                "never are; get it anew."
            )
        self._bytes_left -= info.file_size
        if self._bytes_left < 0:
            raise InputError(
                f"{self.path} is damaged: its entries claim more bytes than it has. "
                "Copy or download it again."
            )
        try:
            data = self._archive.read(info)
            if len(data) != info.file_size:
                raise EOFError(f"{len(data)} of {info.file_size} bytes")
            return data
        except _DAMAGE as error:
            raise InputError(
                f"{self.path}: its entry {name[:80]!r} cannot be read "
                f"({error or type(error).__name__}): the file is cut short or damaged. "
                "Copy or download it again."
            ) from error


class _BoundedFile(io.FileIO):
    """A file that refuses a long read while the zip's table of contents is read."""

    is_bounded = True

    def read(self, size: int = -1) -> bytes:
        if self.is_bounded and size > MAX_DIRECTORY_BYTES:
            raise OSError(f"its table of contents claims {size:,} bytes")
        return super().read(size)


@contextlib.contextmanager
def open_zip(path: Path, what: str) -> Iterator[ZipReader]:
    """Opens a zip for reading.

    Args:
      path: the file.
      what: what it should be, for messages.

    Raises:
      InputError: there is no such file, or it is no zip.
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
            file = stack.enter_context(_BoundedFile(path))
            archive = stack.enter_context(zipfile.ZipFile(file))
        except PermissionError as error:
            raise InputError(f"{path} may not be read ({error.strerror}).") from error
        except _DAMAGE as error:
            raise InputError(
                f"{path} cannot be read as {what} ({error or type(error).__name__}): "
                "it is cut short, damaged, or another kind of file. Copy or make it "
                "again."
            ) from error
        file.is_bounded = False
        yield ZipReader(archive, path)
