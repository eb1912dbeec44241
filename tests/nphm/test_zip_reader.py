import struct
import zipfile

import pytest

from npga_jax.core.errors import InputError
from npga_jax.nphm.zip_reader import MAX_DIRECTORY_BYTES, open_zip


def test_entry_that_claims_more_than_the_file_has_is_refused(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"1234")
    data = path.read_bytes()
    sizes = struct.pack("<II", 4, 4)
    claimed = struct.pack("<II", 2**30, 2**30)
    directory = data.rindex(b"PK\x01\x02")
    path.write_bytes(data[:directory] + data[directory:].replace(sizes, claimed))
    with (
        open_zip(path, "a zip") as archive,
        pytest.raises(InputError, match="claim more bytes than it has"),
    ):
        archive.read("a", 2**31)


def test_long_table_of_contents_is_not_read(tmp_path):
    path = tmp_path / "x.zip"
    size = MAX_DIRECTORY_BYTES + 1
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, size, 0, 0)
    path.write_bytes(bytes(size) + end)
    with pytest.raises(InputError, match="table of contents"), open_zip(path, "a zip"):
        pass
