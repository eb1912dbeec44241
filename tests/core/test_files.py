"""Folders for results and caches, and JSON that is written whole."""

import errno
import json
from pathlib import Path

import pytest

from npga_jax.core.errors import InputError
from npga_jax.core.files import atomic_write, cache_root, check_writable, write_json


def test_caches_go_where_the_user_says(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NPGA_CACHE", raising=False)
    assert cache_root() == tmp_path / ".cache/npga_jax"
    monkeypatch.setenv("NPGA_CACHE", "")
    assert cache_root() == tmp_path / ".cache/npga_jax"
    monkeypatch.setenv("NPGA_CACHE", "/elsewhere")
    assert cache_root() == Path("/elsewhere")
    assert cache_root(Path("~/chosen")) == tmp_path / "chosen"


def test_checking_a_folder_leaves_nothing_behind(tmp_path):
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file cannot be written"):
        check_writable(tmp_path / "file")


def test_json_replaces_what_was_there(tmp_path):
    path = tmp_path / "report.json"
    for value in ({"a": [1, None]}, {"path": Path("x")}):
        write_json(path, value)
    assert json.loads(path.read_text()) == {"path": "x"}
    assert list(tmp_path.iterdir()) == [path]


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def fail(*_):
    raise RuntimeError("a bug")


@pytest.mark.parametrize(
    ("write", "error", "said"),
    [
        (full_disk, InputError, r"new/a\.bin cannot be written \(No space.*--there"),
        (fail, RuntimeError, "a bug"),
    ],
)
def test_a_file_is_written_whole_or_not_at_all(tmp_path, write, error, said):
    path = tmp_path / "new" / "a.bin"
    for _ in range(2):
        with atomic_write(path) as file:
            file.write(b"old")
            assert not path.exists() or path.read_bytes() == b"old"
            assert file.name.endswith(".part")
    with (
        pytest.raises(error, match=said),
        atomic_write(path, instead="give --there") as file,
    ):
        file.write(b"new")
        write(file)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "a.bin", tmp_path / "folder"):
        with pytest.raises(InputError, match=f"{path} cannot be written"):
            write_json(path, {})
    assert {p.name for p in tmp_path.iterdir()} == {"file", "folder"}


def test_what_cannot_be_read_meanwhile_is_not_said_to_be_unwritable(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a.bin") as file:
        file.write((tmp_path / "absent").read_bytes())
