"""The head model's benchmark on sizes that take no time."""

import importlib.util
import json
import os

import numpy as np
import pytest

from npga_jax.app import cli
from tests.nphm_case import ROOT, TINY


@pytest.fixture(scope="module")
def benchmark():
    """The script as a module, its process-wide settings undone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
        patch.syspath_prepend(ROOT / "dev")
        path = ROOT / "dev" / "benchmark.py"
        spec = importlib.util.spec_from_file_location("npga_benchmark", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        patch.setattr(module.runtime, "use_wide_vectors", lambda: None)
        yield module


@pytest.fixture(scope="module")
def bench_nphm(benchmark):
    """The part of the benchmark that measures the head model."""
    return importlib.import_module("bench_nphm")


def test_benchmark_prints_and_writes_every_row(
    benchmark, bench_nphm, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("npga_jax.nphm.NPHMConfig", lambda: TINY)
    path = tmp_path / "out" / "numbers.json"
    argv = ["nphm", "--points", "300", "--repeats", "2", "--twin-points", "70"]
    argv += ["--gate", "--output", str(path)]
    cli.run(benchmark.main, benchmark.BenchmarkConfig, argv=argv)
    whole = json.loads(path.read_text())
    assert len(whole["gates"]) == 4 and all(gate["passed"] for gate in whole["gates"])
    report = whole["nphm"]
    assert set(report["rows"]) == set(bench_nphm.OFFICIAL)
    for name, row in report["rows"].items():
        assert 0 < row["min_ms"] <= row["median_ms"] < 1e3 * row["first_call_s"]
        official = report["official_s_per_100k"][name]
        assert row["times_faster_cpu"] * row["cpu_ms"] == pytest.approx(
            1e3 * official["cpu"] * 300 / 100_000
        )
        assert (0.3 < row["edges_computed"] <= 1) == ("deform" not in name)
    assert report["edges_possible"] == 300 * TINY.num_edges
    assert set(report["twins"]) == {"streaming", "blocks", "dense"}
    printed = capsys.readouterr().out
    assert "full forward + gradient at 70 points" in printed
    assert all(name in printed for name in bench_nphm.OFFICIAL)


def test_operations_are_those_of_the_products(bench_nphm):
    head, _ = bench_nphm.make_head(TINY)
    # Offsets, then hidden layers, then the output; weights as in the configuration.
    geo = 5 * 8 + 8 * 8 + 8
    app = 8 * 2 + 2 * 2 + 2 * 7 + 7 * 7 + 7 * 3
    # The middle one of four layers reads the point again.
    deform = 3 * 9 + (9 + 3) * 9 + 9 * 9 + 9 * 5
    expected = {
        "deformation": 10 * deform,
        "deformation + vjp": 20 * deform,
        "SDF": 30 * geo,
        "SDF + colour": 30 * (geo + app),
        "full forward": 30 * (geo + app) + 10 * deform,
        "full forward + gradient": 30 * (2 * geo + app) + 20 * deform,
    }
    assert expected == {
        name: bench_nphm.count_flops(head, name, 10, 30) / 2 for name in expected
    }


def test_points_are_near_anchors_and_in_the_box(bench_nphm):
    head, _ = bench_nphm.make_head(TINY)
    anchors = np.asarray(head.params["anchors_mean"])
    np.testing.assert_allclose(anchors[0], anchors[1] * [-1, 1, 1])
    points = bench_nphm.make_points(anchors, 1001)
    assert points.shape == (1001, 3)
    nearest = np.linalg.norm(points[:, None] - anchors, axis=-1).min(axis=1)
    assert 0.45 < np.mean(nearest < 0.15) < 0.75


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--points", "0"], "--points 0: expected a whole number, 1 or more"),
        (
            ["--twin-points", "-1"],
            "--twin-points -1: expected a whole number, 0 or more",
        ),
        (["--repeats", "0"], "--repeats 0: expected a whole number, 1 or more"),
        (["--output", "."], "is a folder"),
        (["--scaling"], "the renderer and the training step"),
    ],
)
def test_unusable_options_are_refused_in_a_sentence(
    benchmark, capsys, options, message
):
    with pytest.raises(SystemExit) as end:
        argv = ["nphm", *options]
        cli.run(benchmark.main, benchmark.BenchmarkConfig, argv=argv)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
