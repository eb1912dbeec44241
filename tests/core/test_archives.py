import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from npga_jax.core.archives import load_npz, open_archive, parse_npy, read_entry
from npga_jax.core.errors import InputError


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_arrays_come_back_packed_or_not(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "text": np.asarray("ω"), "n": 3}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)
        found = load_npz(tmp_path / "x.npz", "a test", max_bytes=10_000)
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
        assert set(load_npz(tmp_path / "x.npz", "a", max_bytes=9999, names="n")) == {
            "n"
        }


def test_what_claims_too_much_is_not_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, a=np.zeros(10**6), b=np.zeros(10**6))
    monkeypatch.setattr(zipfile.ZipFile, "read", None)  # To read is to fail.
    for most in (None, 15_999_999):
        with pytest.raises(InputError, match=r"bomb\.npz: its entries claim 16,000,"):
            load_npz(path, "codes", max_bytes=most)


@pytest.mark.parametrize(
    "shape", [b"(5,)", b"(" + b"9" * 15 + b",)", b"(-1,)", b"(" * 9, b"None", b"(4"]
)
def test_an_array_that_claims_what_it_has_not_is_refused(shape):
    data = npy(np.zeros(4))
    data = data.replace(b"(4,), }".ljust(40), (shape + b", }").ljust(40))
    with pytest.raises(InputError, match="x cannot be used"):
        parse_npy(data, "x")


@pytest.mark.parametrize("data", [npy(np.zeros(9))[:-1], b"", b"\x93NUMPY", b"PK\3\4"])
def test_bytes_that_are_no_array_are_refused(data):
    with pytest.raises(InputError, match="x cannot be used"):
        parse_npy(data, "x")


class Bomb:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_pickled_objects_are_not_unpickled(tmp_path):
    marker = tmp_path / "executed"
    np.savez(tmp_path / "x.npz", a=np.asarray(Bomb(marker), object))
    with pytest.raises(InputError, match="'a' cannot be used"):
        load_npz(tmp_path / "x.npz", "codes")
    assert not marker.exists()
    np.load(tmp_path / "x.npz", allow_pickle=True)["a"]
    assert marker.exists(), "the payload is not live: this would prove nothing"


def test_other_files_are_named(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_bytes(b"hello" * 100)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with zipfile.ZipFile(tmp_path / "twice", "w") as archive:
        archive.writestr("a", "b")
        with pytest.warns(UserWarning):
            archive.writestr("a", "b")
    for name, message in {
        "empty": "cut short, damaged, or another kind",
        "text": "cut short, damaged, or another kind",
        "folder": "is a folder; expected a file: codes",
        "pipe": "not a regular file",
        "absent": "there is no file .*absent; expected codes",
        "twice": "two entries of the same name",
    }.items():
        with pytest.raises(InputError, match=message):
            load_npz(tmp_path / name, "codes")


def test_an_entry_that_is_absent_or_encrypted_is_named(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "b")
    with (
        open_archive(path, "a zip") as archive,
        pytest.raises(InputError, match=r"x\.zip lacks its entry 'c'"),
    ):
        read_entry(archive, "c")
    data = bytearray(path.read_bytes())
    data[6] |= 1  # Encrypted: the flag of the entry, and of the table of contents.
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with (
        open_archive(path, "a zip") as archive,
        pytest.raises(InputError, match=r"entry 'a' cannot be read .*encrypted"),
    ):
        read_entry(archive, "a")
