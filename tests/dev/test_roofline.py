"""Estimates of device times: the counting behind them."""

import importlib.util
import json
import os
from pathlib import Path

import pytest

from npga_jax.app import cli

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def roofline():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPO / "dev")
        patch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
        path = REPO / "dev" / "roofline.py"
        spec = importlib.util.spec_from_file_location("npga_roofline", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def test_weights_of_the_networks_are_counted_on_their_shapes(roofline):
    quick = roofline.network_macs("quick", 100)
    # Three coordinates and 6 octaves of sines and cosines; four layers; three outputs.
    assert quick.forward_macs == 39 * 128 + 3 * 128 * 128 + 128 * 3
    assert not quick.forward_is_trained
    # Two octaves, and eight features.
    assert quick.detail_macs == 23 * 64 + 3 * 64 * 64 + 64 * 14
    assert quick.num_params == 3 + 4 + 3 + 1 + 3 + 8 + 2
    paper = roofline.network_macs("paper", 100)
    assert paper.forward_is_trained
    assert paper.forward_macs == quick.forward_macs + 8 * 128


def test_the_slowest_of_three_rates_is_the_bound(roofline):
    device = roofline.Device(vector=1e3, matrix=1e6, bandwidth=1e2)
    work = roofline.Work(vector=3e3, matrix=5e6, bytes=1e2)
    assert roofline.bound(work, device) == (5.0, "matrix")
    assert roofline.bound(work.plus(roofline.Work(bytes=1e3)), device) == (11, "memory")
    assert roofline.bound(work._replace(vector=7e3), device) == (7.0, "vector")


def test_compositing_grows_with_pairs_and_is_no_less_than_the_products(roofline):
    counts = roofline.Counts(1000, 5000, 8, 64, 48)
    assert counts.pairs == 5000 * 64
    forward = roofline.composite_forward(counts)
    backward = roofline.composite_backward(counts)
    # A multiplication and an addition for each channel, and the exponential.
    assert forward.vector > (2 * 3 + roofline.EXP) * counts.pairs
    assert backward.vector > 1.5 * forward.vector
    # Every pixel is written, every row read.
    assert forward.bytes == 4 * 4 * 64 * 48 + 4 * 10 * 5000
    twice = roofline.composite_forward(counts._replace(num_isects=10_000))
    assert twice.vector == 2 * forward.vector
    wide = roofline.composite_forward(counts._replace(channels=4))
    assert wide.vector - forward.vector == 2 * counts.pairs


def test_the_table_counts_on_the_scene(roofline, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(roofline, "SIZES", ((32, 48), (64, 96)))
    monkeypatch.setattr(roofline, "COUNTS", (300,))
    scene = (
        "import numpy as np\n"
        "def make_scene(n, width, height):\n"
        "    return dict(means=np.float32([[0, 0, 2]] * n),\n"
        "        quats=np.ones((n, 4), np.float32),\n"
        "        scales=np.full((n, 3), 9.0, np.float32),\n"
        "        opacities=np.full(n, 0.9, np.float32),\n"
        "        colors=np.ones((n, 3), np.float32),\n"
        "        viewmat=np.eye(4, dtype=np.float32),\n"
        "        K=np.float32([[20, 0, 8], [0, 20, 6], [0, 0, 1]]),\n"
        "        width=width, height=height)\n"
    )
    (tmp_path / "scene.py").write_text(scene)
    output = tmp_path / "out" / "rows.json"
    argv = ["--bench-dir", str(tmp_path), "--output", str(output)]
    cli.run(roofline.main, roofline.RooflineConfig, argv=argv)
    rows = json.loads(output.read_text())
    assert len(rows) == 2 * len(roofline.DEVICES)
    # Everything covers everything: 4 x 6 and 8 x 12 tiles.
    assert {row["num_isects"] for row in rows} == {300 * 24, 300 * 96}
    for row in rows:
        for name in ("forward", "forward_backward", "step"):
            assert 0 < row[f"{name}_fused_ms"] < row[f"{name}_xla_ms"]
        assert row["forward_fused_ms"] < row["forward_backward_fused_ms"]
        assert row["forward_backward_fused_ms"] < row["step_fused_ms"]
    printed = capsys.readouterr().out
    assert "nothing here was measured" in printed and "scene: standard" in printed


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--output", "."], "is a folder"),
        (["--output", "/dev/null/x"], "cannot be written"),
        (["--bench-dir", "/dev/null"], "has no scene.py"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_sentence(roofline, capsys, argv, message):
    with pytest.raises(SystemExit) as end:
        cli.run(roofline.main, roofline.RooflineConfig, argv=argv)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
