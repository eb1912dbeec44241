"""Slow paths are named with the reason, once; whoever asks is told the same."""

import importlib.metadata
import re
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.rasterizer import pallas, paths
from npga_jax.rasterizer.compositing import Blocking
from npga_jax.rasterizer.native import ffi
from npga_jax.rasterizer.rendering import rasterization

from .scenes import LEAVES, cameras, cloud


@pytest.fixture(autouse=True)
def nothing_said_yet():
    paths._announce.cache_clear()


def _trace(dtype=np.float32, **options):
    scene = cloud(n=8)

    def render(*leaves):
        leaves = [x.astype(dtype) for x in leaves]
        size = {"width": 16, "height": 16, "max_isects": 64}
        return rasterization(*leaves, *cameras(1, 16, 16), **size, **options)

    jax.eval_shape(render, *(scene[k] for k in LEAVES))


def test_the_fast_path_says_nothing(capsys):
    path = paths.renderer_path()
    if ffi.unavailable():
        pytest.skip(f"this machine has none: {ffi.unavailable()}")
    assert path == ("native", "", importlib.metadata.version("numba"))
    _trace()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("said", "setting"),
    [
        ("NPGA_NATIVE is 0", "environment"),
        ("numba cannot be imported .*; pip install numba", "no numba"),
        ("tiles of 12 pixels; native code takes those of 4, 8 and 16", "tiles"),
        ("the input is bfloat16, and .* float32", "dtype"),
        ("no kernels that are proven on the platform tpu", "tpu"),
        (r"no Pallas for Triton; install .* pip install \"jax\[", "no triton"),
        (r"compute capability 7.5, and the kernels need 8.0", "old gpu"),
        ("for NVIDIA's GPUs only", "other gpu"),
    ],
)
def test_slow_paths_are_announced_once_with_the_reason(
    monkeypatch, capsys, said, setting
):
    asked, options = {}, {}
    if setting == "environment":
        monkeypatch.setenv("NPGA_NATIVE", "0")
    elif setting == "no numba":
        monkeypatch.setitem(sys.modules, "numba", None)
        # The answer of a process without numba, not that of this one.
        monkeypatch.setattr(ffi, "unavailable", ffi.unavailable.__wrapped__)
    elif setting == "tiles":
        asked, options = {"tile_size": 12}, {"blocking": Blocking(12)}
    elif setting == "dtype":
        asked, options = {"dtype": jnp.bfloat16}, {"dtype": jnp.bfloat16}
    else:
        backend = "tpu" if setting == "tpu" else "gpu"
        monkeypatch.setattr(jax, "default_backend", lambda: backend)
        version = "7.5" if setting == "old gpu" else "gfx90a"
        device = SimpleNamespace(compute_capability=version)
        monkeypatch.setattr(jax, "local_devices", lambda: [device])
        if setting == "no triton":
            monkeypatch.setattr(pallas, "PROVEN", {})
    for _ in range(2):
        _trace(**options)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    path = paths.renderer_path(**asked)
    assert path.path == "pure"
    assert lines[0] == f"rasterization takes its slow path: {path.reason}."
    assert re.search(said, path.reason)


def test_what_a_failed_compilation_says_is_one_line(monkeypatch):
    def fail(numba):
        raise RuntimeError("no such\n  target")

    monkeypatch.setattr(ffi, "_register", fail)
    reason = ffi.unavailable.__wrapped__()
    assert reason == "the native code cannot be compiled here (no such target)"
