"""The whole training step lowers for GPUs and TPUs, and compiles for the latter."""

import contextlib
import importlib.util
import json
import os
from pathlib import Path

import jax
import pytest

from npga_jax.app import cli
from npga_jax.rasterizer.native import ffi

REPO = Path(__file__).resolve().parents[2]
SMALL = ["--num-gaussians", "200", "--width", "32", "--height", "48"]


REPORT = {
    "num_gaussians": 1,
    "width": 1,
    "height": 1,
    "views": 1,
    "device": "TPU",
    "jax": jax.__version__,
    "device_memory": 120,
}


@pytest.fixture(scope="module")
def aot():
    """The script as a module; the process keeps its own settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(REPO / "dev")
        patch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
        path = REPO / "dev" / "aot.py"
        spec = importlib.util.spec_from_file_location("npga_aot", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        patch.setattr(module, "_prepare_process", lambda: None)
        yield module


def _small(aot, target):
    sizes = {"num_gaussians": 200, "width": 32, "height": 48, "max_isects": 4096}
    return aot.AotConfig(target, what="step", **sizes)


@pytest.mark.parametrize("by_kernels", [False, True])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_the_whole_step_lowers_for(aot, platform, by_kernels):
    cfg = _small(aot, f"{platform}-lowering")
    program = list(aot.programs(cfg, jax.devices()[0]))[by_kernels]
    assert program.name.endswith("Pallas") == by_kernels
    with aot.beside_a_gpu() if platform == "cuda" else contextlib.nullcontext():
        traced = program.jitted.trace(*program.shapes)
        text = traced.lower(lowering_platforms=(platform,)).as_text()
    # The state's memory is given away; nothing of the CPU is in it.
    state, batch = program.shapes
    donated = text.count("tf.aliasing_output") + text.count("jax.buffer_donor")
    assert donated == len(jax.tree.leaves(state))
    assert batch.rgb.shape == (1, 48, 32, 3)
    assert ffi.TARGET not in text
    kernel_call = {"tpu": "tpu_custom_call", "cuda": "triton"}[platform]
    assert (kernel_call in text) == by_kernels
    # Adam of all parameters, G's basis among them, and F's frozen layers.
    assert f"tensor<48x{program_width(state)}x14xf32>" in text
    assert "tensor<39x128xf32>" in text


def program_width(state) -> int:
    """Width of G's last hidden layer."""
    return state.params.detail["basis_w"].shape[1]


def test_lowering_alone_needs_no_compiler(aot, tmp_path, capsys):
    path = tmp_path / "out" / "aot.json"
    argv = ["--target", "cuda-lowering", "--what", "renderer", *SMALL]
    cli.run(aot.main, aot.AotConfig, argv=[*argv, "--output", str(path)])
    report = json.loads(path.read_text())
    names = [row["name"] for row in report["programs"]]
    both = ["renderer forward", "renderer forward+backward"]
    assert names == both + [f"{name} Pallas" for name in both]
    assert all(row["lower_s"] > 0 for row in report["programs"])
    assert not any("compile_s" in row for row in report["programs"])
    assert {row["max_isects"] for row in report["programs"]} == {16_384}
    printed = capsys.readouterr()
    assert "renderer forward+backward" in printed.out
    assert "lowering" in printed.err


def test_memory_of_the_parts_is_added_up_and_compared(aot, monkeypatch, capsys):
    class Compiled:
        def compile(self):
            return self

        def memory_analysis(self):
            class Memory:
                argument_size_in_bytes = 100
                output_size_in_bytes = 50
                alias_size_in_bytes = 40
                temp_size_in_bytes = 7
                generated_code_size_in_bytes = 3

            return Memory()

    class Traced:
        def lower(self):
            return Compiled()

    class Jitted:
        def trace(self):
            return Traced()

    program = aot.Program("step", Jitted(), (), 1)
    target = aot.Target("tpu", module="libtpu", memory=120)
    row = aot.compile_program(program, target)
    assert row["total_bytes"] == 120 and row["fits"]
    row = aot.compile_program(program, target._replace(memory=119))
    assert not row["fits"]

    def refuse(self):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 17 GiB of 16 GiB")

    monkeypatch.setattr(Compiled, "compile", refuse)
    row = aot.compile_program(program, target)
    assert row == {"name": "step", "max_isects": 1, "fits": False} | {
        "lower_s": row["lower_s"]
    }
    aot.print_report({**REPORT, "programs": [row]})
    printed = capsys.readouterr()
    assert "17 GiB of 16 GiB" in printed.err
    assert printed.out.rstrip().endswith("no")


@pytest.mark.slow
def test_the_whole_step_compiles_for_a_tpu(aot):
    pytest.importorskip("libtpu", reason="libtpu, which compiles for TPUs, is missing")
    aot.os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    target = aot.TARGETS["tpu-v5e"]
    (device, *_) = aot.topology_devices(target)
    for program in aot.programs(_small(aot, "tpu-v5e"), device):
        row = aot.compile_program(program, target)
        assert row["fits"]
        state = program.shapes[0]
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
        # The old state's memory is where the new one goes.
        assert row["alias_bytes"] >= size


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--target", "tpu-v5e"], "pip install libtpu"),
        (["--target", "h100"], "pip install 'jax[cuda12]'"),
        (["--target", "cuda-lowering", "--width", "0"], "1 or more"),
        (["--target", "cuda-lowering", "--num-gaussians", "9" * 12], "at most"),
        (["--target", "cuda-lowering", "--output", "."], "is a folder"),
        (["--target", "cuda-lowering", "--output", "/dev/null/x"], "cannot be written"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(aot, capsys, monkeypatch, argv, message):
    monkeypatch.setattr(aot.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as end:
        cli.run(aot.main, aot.AotConfig, argv=argv)
    assert end.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
