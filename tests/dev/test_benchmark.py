"""The benchmark command on scenes that take no time."""

import importlib.util
import json
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tyro

from npga_jax.app import cli
from npga_jax.core import memory
from npga_jax.core.errors import InputError

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def benchmark():
    """The script as a module; what it changes in the process is undone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPO / "dev")
        patch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
        path = REPO / "dev" / "benchmark.py"
        spec = importlib.util.spec_from_file_location("npga_benchmark", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        patch.setattr(module.runtime, "use_wide_vectors", lambda: None)
        yield module


@pytest.fixture(scope="module")
def parts(benchmark):
    """The modules that do the measuring, by name."""
    names = ("renderer", "step", "scaling", "scenes", "timing")
    return {name: importlib.import_module(f"bench_{name}") for name in names}


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
    whole = json.loads(output.read_text())
    report = whole["renderer"]
    assert report["scene"] == "standard"
    assert report["num_isects"] > 0
    for mode in ("forward", "forward+backward"):
        row = report["times"][mode]["npga_jax"]
        assert 0 < row["min_ms"] <= row["median_ms"] < 1e3 * row["first_call_s"]
        assert row["spread_ms"] >= 0 and row["cpu_ms"] > 0
        native = report["times"][mode]["native"]
        assert row["ratio_to_native"] == row["min_ms"] / native["min_ms"]
    assert set(report["accuracy"]) == {
        "psnr",
        *(f"rel_{k}" for k in ("means", "quats", "scales", "opacities", "colors")),
    }
    assert report["peers"] == ["| peer | 1 ms |"]
    # This gold is wrong; the twin is not.
    passed = {gate["name"]: gate["passed"] for gate in whole["gates"]}
    assert not passed["renderer: PSNR against the gold"]
    ratio = report["times"]["forward"]["npga_jax"]["ratio_to_native"]
    assert passed["renderer: forward, times the native one's"] == (ratio <= 3)
    assert passed["renderer: PSNR against the dense twin"]
    assert passed["renderer: gradient of quats against the dense twin"]
    printed = capsys.readouterr().out
    assert "forward+backward native" in printed
    assert "measured there, not here" in printed


def test_own_scene_is_visible_and_the_same_every_time(parts):
    first, second = (parts["scenes"].make_head_scene(300, 20, 30) for _ in range(2))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
    image = np.asarray(parts["renderer"].Impl(first).fwd())
    assert image.shape == (30, 20, 3)
    covered = np.mean(np.abs(image - 1) > 0.05)
    assert 0.05 < covered < 0.95


def test_calls_take_turns_and_the_first_round_is_not_counted(parts):
    order = []

    def call(name):
        order.append(name)
        time.sleep(0.05 if len(order) <= 2 else 0.001)
        return len(order)

    calls = {name: partial(call, name) for name in "ab"}
    times, results = parts["timing"].time_in_turns(calls, repeats=2)
    assert order == ["a", "b"] * 3
    keys = {"first_call_s", "min_ms", "median_ms", "spread_ms", "cpu_ms"}
    assert set(times["a"]) == keys
    assert times["a"]["first_call_s"] >= 0.05 > times["a"]["min_ms"] / 1e3 >= 0.001
    assert results == {"a": 5, "b": 6}


def test_gold_of_ones_own_result_has_no_error(parts):
    image = np.random.default_rng(0).random((4, 5, 3))
    grads = {name: np.ones((2, 3)) for name in parts["scenes"].LEAVES}
    gold = {"img": image, **{f"g_{k}": 2 * v for k, v in grads.items()}}
    result = parts["renderer"].compare_with_gold(image, grads, gold)
    assert result.pop("psnr") == pytest.approx(200)
    assert all(error == pytest.approx(0.5) for error in result.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--repeats", "0"], "1 or more"),
        (["--bench-dir", "no-such-folder"], "no scene.py"),
        (["--num-gaussians", "1000000000000"], "at most 16777216"),
        (["--num-devices", "999", "--views", "999"], "--views 999: expected"),
        (["--num-devices", "999"], "--num-devices 999: expected"),
        (["--num-devices", "2"], "--views 1 cannot be shared"),
    ],
)
def test_unusable_options_are_refused_in_a_sentence(
    benchmark, capsys, options, message
):
    with pytest.raises(SystemExit) as end:
        cli.run(benchmark.main, benchmark.BenchmarkConfig, argv=["renderer", *options])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_broken_shared_scene_is_refused_in_a_sentence(benchmark, tmp_path, capsys):
    (tmp_path / "scene.py").write_text("def make_scene(:")
    argv = ["renderer", "--bench-dir", str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        cli.run(benchmark.main, benchmark.BenchmarkConfig, argv=argv)
    assert end.value.code == 2
    assert "scene.py of the shared benchmark cannot be run" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["renderer", "step"])
def test_lack_of_memory_is_said_before_anything_is_run(
    benchmark, parts, monkeypatch, capsys, part
):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1000)
    argv = [part, *SMALL_STEP, "--no-compare"]
    with pytest.raises(SystemExit) as end:
        cli.run(benchmark.main, benchmark.BenchmarkConfig, argv=argv)
    assert end.value.code == 2
    assert "GiB are left. Lower --" in capsys.readouterr().err


SMALL_STEP = ["--num-gaussians", "300", "--width", "32", "--height", "48"]


def test_step_benchmark_times_the_whole_and_its_parts(
    benchmark, parts, tmp_path, capsys
):
    output = tmp_path / "numbers.json"
    argv = ["step", *SMALL_STEP, "--repeats", "2", "--gate", "--no-compare"]
    argv += ["--output", str(output)]
    cli.run(benchmark.main, benchmark.BenchmarkConfig, argv=argv)
    whole = json.loads(output.read_text())
    report = whole["step"]
    assert len(report["times"]) == 7
    for row in report["times"].values():
        assert 0 < row["min_ms"] <= row["median_ms"]
    assert report["compile_s"] > 0 and report["lower_s"] > 0
    assert report["num_isects"] > 0 and report["last_step"]["num_dropped"] == 0
    # It trains: the last step's loss is not the first one's.
    assert report["last_step"]["loss"] < report["first_step"]["loss"]
    assert [gate["passed"] for gate in whole["gates"]] == [True, True, None, None]
    printed = capsys.readouterr().out
    assert "losses, and gradient" in printed and "passed" in printed
    # A step that is not the twin's misses the gate.
    first = report["first_step"]
    for loss, passed in ((first["loss"], True), (1.0001 * first["loss"], False)):
        pure = {**first, "loss": loss}
        gates = parts["step"].gates({**report, "first_step_pure": pure})
        assert [gate.passed for gate in gates] == [True, True, passed, True]


@pytest.mark.slow
def test_the_step_is_that_of_the_pure_path(benchmark, tmp_path):
    output = tmp_path / "numbers.json"
    argv = ["step", *SMALL_STEP, "--repeats", "1", "--gate", "--output", str(output)]
    cli.run(benchmark.main, benchmark.BenchmarkConfig, argv=argv)
    gates = json.loads(output.read_text())["gates"]
    assert [gate["passed"] for gate in gates] == [True] * 4


def test_a_missed_gate_is_an_exit_code_and_a_line(benchmark, monkeypatch, capsys):
    gate = {"name": "speed", "value": 4.0, "limit": "<= 3", "note": "", "passed": False}

    def measure(cfg):
        benchmark.print_gates([gate])
        return {"gates": [gate]}

    monkeypatch.setattr(benchmark, "measure", measure)
    cli.run(benchmark.main, benchmark.BenchmarkConfig, argv=["step"])
    with pytest.raises(SystemExit) as end:
        cli.run(benchmark.main, benchmark.BenchmarkConfig, argv=["step", "--gate"])
    assert end.value.code == 1
    assert "MISSED" in capsys.readouterr().out
    gate["passed"] = None
    cli.run(benchmark.main, benchmark.BenchmarkConfig, argv=["step", "--gate"])


@pytest.mark.parametrize(
    ("value", "limit", "passed"),
    [
        (3.0, "<= 3", True),
        (3.1, "<= 3", False),
        (80.0, ">= 80.0", True),
        (79.9, ">= 80.0", False),
        (float("nan"), ">= 80", False),
        (float("nan"), "<= 3", False),
        (None, "<= 3", None),
    ],
)
def test_gates_hold_at_their_limits_and_never_for_nan(parts, value, limit, passed):
    assert parts["timing"].Gate("x", value, limit).passed is passed


def _report(num_devices, loss):
    times = {"training step": {"median_ms": 3.0}}
    return {
        "step": {
            "times": times,
            "first_step": {"loss": loss, "grad_norm": 2.0},
            "num_isects": 500,
            "views": 2,
            "rss_peak_mb": 100.0 + num_devices,
        }
    }


def test_scaling_compares_devices_and_divides_by_intersections(
    benchmark, parts, monkeypatch, tmp_path, capsys
):
    scaling = parts["scaling"]
    calls = []

    def run(part, options):
        calls.append((part, options))
        count = int(options[options.index("--num-devices") + 1])
        return _report(count, 1.0 + 1e-3 * (count == 4))

    tables = [t for t in scaling.TABLES if (t.part, t.title) == ("step", "devices")]
    monkeypatch.setattr(scaling, "TABLES", tables)
    monkeypatch.setattr(scaling, "run", run)
    output = tmp_path / "scaling.json"
    argv = ["step", "--scaling", "--repeats", "7", "--output", str(output)]
    cli.run(benchmark.main, benchmark.BenchmarkConfig, argv=argv)
    assert calls[0] == (
        "step",
        ("--num-devices", "1", "--views", "8", "--repeats", "7"),
    )
    (table,) = json.loads(output.read_text())["tables"]
    assert [row["label"] for row in table["rows"]] == ["1", "2", "4", "8"]
    assert [row["error"] > 1e-4 for row in table["rows"]] == [False, False, True, False]
    for row in table["rows"]:
        assert row["ms_per_million_isects"] == pytest.approx(3.0 * 1e6 / 1000)
    assert "| devices |" in capsys.readouterr().out
    # Four devices that compute something else are a missed gate; so is NaN.
    with pytest.raises(SystemExit) as end:
        cli.run(benchmark.main, benchmark.BenchmarkConfig, argv=[*argv, "--gate"])
    assert end.value.code == 1
    assert len(scaling.missed({"tables": [{"rows": [{"error": float("nan")}]}]})) == 1


def test_every_table_asks_for_options_that_there_are(benchmark, parts):
    for table in parts["scaling"].TABLES:
        for options in table.rows.values():
            cfg = tyro.cli(benchmark.BenchmarkConfig, args=[table.part, *options])
            benchmark.check(cfg)


@pytest.mark.slow
def test_devices_of_other_processes_compute_what_one_does(parts, monkeypatch):
    scaling = parts["scaling"]
    rows = {n: ("--num-devices", n, "--views", "2", *SMALL_STEP) for n in ("1", "2")}
    tables = (scaling.Table("step", "devices", rows),)
    monkeypatch.setattr(scaling, "TABLES", tables)
    report = scaling.measure(("step",), repeats=1)
    one, two = report["tables"][0]["rows"]
    assert one["error"] == 0 and two["error"] <= 1e-5
    assert one["num_isects"] == two["num_isects"] > 0
    assert two["rss_peak_mb"] > 50
    assert not scaling.missed(report)


def test_a_row_that_fails_says_so(parts):
    with pytest.raises(InputError, match="1 or more"):
        parts["scaling"].run("renderer", ("--num-gaussians", "0"))
