"""`dev/bench_avatar.py`: what it says of an avatar and of the run that wrote it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "dev")
    import bench_avatar

    return bench_avatar


def test_the_avatar_draws_what_its_run_draws(script, tiny_run, tmp_path, capsys):
    script.main(
        script.BenchAvatarConfig(
            avatar=tiny_run.folder / "avatar.npz",
            sizes=((32, 48), (16, 24)),
            frames=2,
            run=tiny_run.folder,
            json=tmp_path / "figures.json",
        )
    )
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["num_gaussians"] == int(np.sum(tiny_run.alive))
    assert set(figures["sizes"]) == {"32x48", "16x24"}
    for row in figures["sizes"].values():
        assert row["difference"] <= 1e-6 and row["ms"] > 0
    assert re.search(
        r"\| 16x24 \| [\d.]+ \| [\d.]+ \| [\d.e+-]+ \|", capsys.readouterr().out
    )
