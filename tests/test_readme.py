"""README's Python, run as it stands: text for paths, a tiny capture for a large one."""

import functools
import re
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import npga_jax
from npga_jax.avatar.settings import GaussianConfig
from npga_jax.training.artefact import AVATAR_FILE
from tests.synthetic_capture import SyntheticCapture

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.fixture
def opening(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """README's block on an avatar; the working folder has what it names."""
    monkeypatch.chdir(tmp_path)
    (block,) = [b for b in BLOCKS if "npga_jax.load(" in b]
    return block


@pytest.fixture
def library(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_capture: SyntheticCapture
) -> str:
    """README's block on the library; DATA lies in the working folder.

    What takes minutes is small (training) or only called (tracking, distillation).
    """
    monkeypatch.chdir(tmp_path)
    Path("DATA").symlink_to(tiny_capture.root)
    small = npga_jax.CaptureConfig(width=32, driving="blendshapes")
    monkeypatch.setattr("npga_jax.app.library.CaptureConfig", lambda: small)
    for name in ("track", "distill"):
        called = mock.create_autospec(getattr(npga_jax, name))
        monkeypatch.setattr(npga_jax, name, called)
    quick = functools.partial(
        npga_jax.TrainConfig,
        output="runs/readme",
        steps=2,
        evaluate=False,
        capture=small,
        gaussians=GaussianConfig(capacity=64),
    )
    monkeypatch.setattr(npga_jax, "TrainConfig", quick)
    (block,) = [b for b in BLOCKS if "npga_jax.train(" in b]
    return block


def test_an_avatar_is_opened_and_drawn(opening, tiny_run):
    Path("runs/demo/TIME").mkdir(parents=True)
    shutil.copy(tiny_run.folder / AVATAR_FILE, "runs/demo/TIME")
    camera = tiny_run.avatar().camera
    names = {
        "expr": tiny_run.avatar().neutral,
        "viewmat": camera.viewmat,
        "K": camera.K,
        "width": 16,
        "height": 24,
    }
    exec(opening, names)
    assert names["image"].shape == (24, 16, 3)
    assert names["cloud"].means.shape == (int(np.sum(tiny_run.alive)), 3)


def test_the_library_takes_text_for_paths(library, tiny_capture):
    count = 5
    names = {
        "means": np.zeros((count, 3), np.float32),
        "quats": np.tile(np.float32([1, 0, 0, 0]), (count, 1)),
        "scales": np.full((count, 3), 0.01, np.float32),
        "opacities": np.full(count, 0.5, np.float32),
        "colors": np.full((count, 3), 0.5, np.float32),
        "viewmats": np.eye(4, dtype=np.float32)[None],
        "Ks": np.float32([[[800, 0, 275], [0, 800, 401], [0, 0, 1]]]),
    }
    names["viewmats"][0, 2, 3] = 1
    exec(library, names)
    assert names["capture"].subject == tiny_capture.subject
    npga_jax.track.assert_called_once_with("074", "DATA")
    assert names["run"].folder == Path("runs/readme")
    assert Path("runs/readme", AVATAR_FILE).is_file()
    assert names["out"].colors.shape == (1, 802, 550, 3)


def test_text_becomes_a_path_in_every_setting_that_is_one():
    given: dict[str, Any] = {
        "data_root": "a",
        "output": "b",
        "method": "c.py",
        "prior": "d.npz",
    }
    cache: dict[str, Any] = {"cache_dir": "e"}
    cfg = npga_jax.TrainConfig(**given, capture=npga_jax.CaptureConfig(**cache))
    found = (cfg.data_root, cfg.output, cfg.method, cfg.prior, cfg.capture.cache_dir)
    assert found == tuple(map(Path, ("a", "b", "c.py", "d.npz", "e")))
    assert cfg.subject == "demo" and cfg.capture.driving == ""


def test_tracking_takes_text_for_paths(monkeypatch, tiny_capture, tmp_path):
    tracked = mock.Mock()
    cache: dict[str, Any] = {"cache_dir": str(tmp_path)}
    monkeypatch.setattr("npga_jax.app.library.track_subject", tracked)
    npga_jax.track(
        "074",
        str(tiny_capture.root),
        output=str(tmp_path),
        prior="prior.npz",
        cfg=npga_jax.CaptureConfig(**cache),
    )
    assert tracked.call_args.args[0] == tiny_capture.root
    assert tracked.call_args.args[2].cache_dir == tmp_path
    given = tracked.call_args.kwargs
    assert (given["output"], given["prior"]) == (tmp_path, Path("prior.npz"))
