"""Folders for results and caches, and JSON that is written whole."""

import json
from pathlib import Path

import pytest

from npga_jax.core.errors import InputError
from npga_jax.core.files import cache_root, check_writable, write_json


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
