"""The standard scene against a float64 reference that was computed elsewhere."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).resolve().parents[2]
BENCH = REPO.parent / "shared" / "bench"
GOLD = BENCH / "gold" / "gold_10000_275x401.npz"


def _load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not GOLD.exists(), reason="needs the shared benchmark's gold")
def test_standard_scene_matches_the_gold(monkeypatch):
    # The adapter chooses a flag for its own process: not for ours.
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
    scene = _load(BENCH / "scene.py").make_scene(10_000, 275, 401)
    impl = _load(REPO / "dev" / "standard_scene.py").Impl(scene)
    image, grads = impl.fwdbwd()
    gold = np.load(GOLD)
    assert -10 * np.log10(np.mean((np.float64(image) - gold["img"]) ** 2)) >= 80
    for name, grad in grads.items():
        expected = np.float64(gold["g_" + name])
        error = np.linalg.norm(grad - expected) / np.linalg.norm(expected)
        assert error <= 1e-3, name
