"""The benchmark command on scenes that take no time."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest

from npga_jax import cli

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def benchmark():
    """The script as a module; what it changes in the process is undone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPO / "experiments")
        patch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
        path = REPO / "experiments" / "benchmark.py"
        spec = importlib.util.spec_from_file_location("npga_benchmark", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


_SCENE_MODULE = """
import numpy as np
def make_scene(n, width, height):
    return dict(
        means=np.float32([[0, 0, 2]] * n), quats=np.ones((n, 4), np.float32),
        scales=np.full((n, 3), 0.1, np.float32), opacities=np.full(n, 0.5, np.float32),
        colors=np.ones((n, 3), np.float32), viewmat=np.eye(4, dtype=np.float32),
        K=np.float32([[20, 0, 8], [0, 20, 6], [0, 0, 1]]), width=width, height=height,
        background=np.zeros(3, np.float32),
        target=np.zeros((height, width, 3), np.float32),
    )
"""

_NATIVE_MODULE = """
class Impl:
    def __init__(self, scene):
        self.fwd = self.fwdbwd = lambda: sum(range(1000))
"""


def test_renderer_benchmark_writes_times_accuracy_and_ratio(
    benchmark, tmp_path, capsys
):
    bench = tmp_path / "bench"
    (bench / "impls").mkdir(parents=True)
    (bench / "gold").mkdir()
    (bench / "scene.py").write_text(_SCENE_MODULE)
    (bench / "impls" / "native.py").write_text(_NATIVE_MODULE)
    (bench / "README.md").write_text("text\n| peer | 1 ms |\nmore\n")
    gold = {"img": np.zeros((12, 16, 3))}
    gold |= {f"g_{name}": np.ones(3) for name in ("means", "scales", "colors")}
    gold |= {"g_quats": np.ones(4), "g_opacities": np.ones(1)}
    np.savez(bench / "gold" / "gold_2_16x12.npz", **gold)
    output = tmp_path / "out" / "numbers.json"
    options = {
        "--num-gaussians": 2,
        "--width": 16,
        "--height": 12,
        "--repeats": 2,
        "--bench-dir": bench,
        "--output": output,
    }
    argv = [str(x) for item in options.items() for x in item]
    cli.run(benchmark.main, benchmark.BenchmarkConfig, argv=["renderer", *argv])
    report = json.loads(output.read_text())
    assert report["scene"] == "standard"
    assert report["num_isects"] > 0
    for mode in ("forward", "forward+backward"):
        row = report["times"][mode]["npga_jax"]
        assert 0 < row["min_ms"] <= row["median_ms"] < 1e3 * row["first_call_s"]
        native = report["times"][mode]["native"]
        assert row["ratio_to_native"] == row["min_ms"] / native["min_ms"]
    assert set(report["accuracy"]) == {
        "psnr",
        *(f"rel_{k}" for k in ("means", "quats", "scales", "opacities", "colors")),
    }
    assert report["peers"] == ["| peer | 1 ms |"]
    printed = capsys.readouterr().out
    assert "forward+backward native" in printed
    assert "measured there, not here" in printed


def test_own_scene_is_visible_and_the_same_every_time(benchmark):
    first, second = (benchmark.make_head_scene(300, 20, 30) for _ in range(2))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
    image = np.asarray(benchmark.Impl(first).fwd())
    assert image.shape == (30, 20, 3)
    covered = np.mean(np.abs(image - 1) > 0.05)
    assert 0.05 < covered < 0.95


def test_calls_take_turns_and_the_first_round_is_not_counted(benchmark):
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    times = benchmark.time_in_turns(calls, repeats=2)
    assert order == ["a", "b"] * 3
    assert set(times["a"]) == {"min_ms", "median_ms", "cpu_ms"}


def test_gold_of_ones_own_result_has_no_error(benchmark):
    image = np.random.default_rng(0).random((4, 5, 3))
    grads = {name: np.ones((2, 3)) for name in benchmark.LEAVES}
    gold = {"img": image, **{f"g_{k}": 2 * v for k, v in grads.items()}}
    result = benchmark.compare_with_gold(image, grads, gold)
    assert result.pop("psnr") == pytest.approx(200)
    assert all(error == pytest.approx(0.5) for error in result.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--repeats", "0"], "1 or more"),
        (["--bench-dir", "no-such-folder"], "no scene.py"),
    ],
)
def test_unusable_options_are_refused_in_a_sentence(
    benchmark, capsys, options, message
):
    with pytest.raises(SystemExit) as end:
        cli.run(benchmark.main, benchmark.BenchmarkConfig, argv=["renderer", *options])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
