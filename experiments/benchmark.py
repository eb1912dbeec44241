"""Times what the package does. `benchmark.py renderer` renders the standard scene.

Compilation and runs are timed apart. Where the shared benchmark folder is there, its
scene is used, the result is checked against its float64 gold, and its native renderer
runs in turns with ours (A B A B): machines are noisy, ratios of minima less so.
"""

import dataclasses
import importlib.util
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from standard_scene import LEAVES, Impl

from npga_jax import __version__, cli
from npga_jax.errors import InputError
from npga_jax.loop import peak_rss_mb
from npga_jax.rasterizer import rasterization
from npga_jax.rasterizer.native import ffi

_REPO = Path(__file__).resolve().parents[1]
_MODES = {"forward": "fwd", "forward+backward": "fwdbwd"}
_HEAD_RADII = np.array([0.095, 0.125, 0.11])


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """Measure speed, memory and accuracy."""

    what: tyro.conf.Positional[Literal["renderer"]]
    """Which part to measure."""
    num_gaussians: int = 50_000
    """Size of the scene."""
    width: int = 550
    """Width of the image in pixels."""
    height: int = 802
    """Height of the image in pixels."""
    repeats: int = 9
    """Timed runs of each kind, after one that compiles and one that warms up."""
    bench_dir: Path | None = None
    """The shared benchmark; default: ../shared/bench beside the repository."""
    output: Path | None = None
    """JSON file for the numbers."""


def main(cfg: BenchmarkConfig) -> None:
    if min(cfg.num_gaussians, cfg.width, cfg.height, cfg.repeats) < 1:
        raise InputError("Counts, sizes and --repeats must be 1 or more.")
    bench_dir = cfg.bench_dir or _REPO.parent / "shared" / "bench"
    if cfg.bench_dir is not None and not (bench_dir / "scene.py").exists():
        raise InputError(f"--bench-dir {bench_dir} has no scene.py.")
    report = measure_renderer(cfg, bench_dir)
    print_report(report)
    if cfg.output is not None:
        cfg.output.parent.mkdir(parents=True, exist_ok=True)
        cfg.output.write_text(json.dumps(report, indent=2) + "\n")
        print(f"\nwrote {cfg.output}")


def measure_renderer(cfg: BenchmarkConfig, bench_dir: Path) -> dict[str, Any]:
    """Everything that `print_report` shows, ready for JSON."""
    size = (cfg.num_gaussians, cfg.width, cfg.height)
    if (bench_dir / "scene.py").exists():
        scene_name = "standard"
        scene = _load(bench_dir / "scene.py").make_scene(*size)
    else:
        scene_name = "own (no shared benchmark folder: not comparable with its figures)"
        scene = make_head_scene(*size)
    load_before, rss_before = os.getloadavg()[0], peak_rss_mb()
    ours = Impl(scene)
    native, native_note = _native_renderer(bench_dir, scene)
    report = {
        **{k: getattr(cfg, k) for k in ("what", "num_gaussians", "width", "height")},
        "scene": scene_name,
        "num_isects": _count_intersections(scene),
        "native": native_note,
        "times": {},
    }
    for mode, method in _MODES.items():
        start = time.perf_counter()
        result = getattr(ours, method)()
        first_call_s = time.perf_counter() - start
        calls = {"npga_jax": getattr(ours, method)}
        if native is not None:
            calls["native"] = getattr(native, method)
        times = time_in_turns(calls, cfg.repeats)
        times["npga_jax"]["first_call_s"] = first_call_s
        if native is not None:
            ratio = times["npga_jax"]["min_ms"] / times["native"]["min_ms"]
            times["npga_jax"]["ratio_to_native"] = ratio
        report["times"][mode] = times
    gold = bench_dir / "gold" / "gold_{}_{}x{}.npz".format(*size)
    use_gold = scene_name == "standard" and gold.exists()
    report["accuracy"] = compare_with_gold(*result, np.load(gold)) if use_gold else None
    readme = bench_dir / "README.md"
    lines = readme.read_text().splitlines() if readme.exists() else []
    memory = jax.local_devices()[0].memory_stats() or {}
    report |= {
        "rss_before_mb": rss_before,
        "rss_peak_mb": peak_rss_mb(),
        "device_peak_mb": memory.get("peak_bytes_in_use", 0) / 2**20 or None,
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
        "peers": [line for line in lines if line.startswith("|")],
        **_describe_machine(),
    }
    return report


def time_in_turns(calls: dict[str, Callable], repeats: int) -> dict[str, dict]:
    """Runs the calls in turns, A B A B, after one round that is not counted."""
    samples = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, call in calls.items():
            start = np.array([time.perf_counter(), time.process_time()])
            call()
            end = np.array([time.perf_counter(), time.process_time()])
            samples[name].append(1e3 * (end - start))
    times = {}
    for name, rows in samples.items():
        shortest, (median, cpu) = np.min(rows[1:], axis=0)[0], np.median(rows[1:], 0)
        values = {"min_ms": shortest, "median_ms": median, "cpu_ms": cpu}
        times[name] = {key: float(value) for key, value in values.items()}
    return times


def compare_with_gold(image, grads, gold) -> dict[str, float]:
    """PSNR of the image, and per input the relative L2 error of its gradient."""
    error = np.asarray(image, np.float64) - gold["img"]
    result = {"psnr": float(-10 * np.log10(np.mean(error**2) + 1e-20))}
    for name in LEAVES:
        expected = gold["g_" + name].astype(np.float64)
        difference = np.linalg.norm(np.asarray(grads[name], np.float64) - expected)
        result["rel_" + name] = float(difference / np.linalg.norm(expected))
    return result


def make_head_scene(n: int, width: int, height: int) -> dict[str, Any]:
    """An ellipsoid of n flat, mostly opaque Gaussians, 1 m before the camera."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(n, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    normals = directions / _HEAD_RADII
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    x, y, z = normals.T
    faint = rng.random(n) < 0.3
    focal = 0.7 * height / (2 * _HEAD_RADII[1])
    values = {
        "means": directions * _HEAD_RADII + rng.normal(0, 1e-3, size=(n, 3)),
        # The rotation that takes z to the ellipsoid's normal.
        "quats": np.stack([1 + z, -y, x, np.zeros(n)], axis=1),
        "scales": np.exp(rng.normal(-6.8, 0.45, size=(n, 3))) * [1, 1, 0.35],
        "opacities": np.where(faint, rng.beta(1.2, 4, n), rng.beta(9, 1.3, n)),
        "colors": 0.5 + 0.3 * np.sin(40 * directions) + 0.05 * rng.normal(size=(n, 3)),
        "viewmat": np.eye(4) + np.outer(np.eye(4)[2], np.eye(4)[3]),
        "K": [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]],
        "background": np.ones(3),
        "target": np.full((height, width, 3), 0.6),
    }
    scene = {name: np.asarray(value, np.float32) for name, value in values.items()}
    return {**scene, "width": width, "height": height}


def print_report(report: dict[str, Any]) -> None:
    print(
        "{num_gaussians} Gaussians, {width}x{height}, {num_isects} tile intersections, "
        "scene: {scene}\n{device}, {cpus} CPUs, load {load_before:.1f} to "
        "{load_after:.1f}, {versions}, commit {commit}\n"
        "XLA_FLAGS={xla_flags}, core of the rasterizer: {core}\n".format(**report)
    )
    keys = ("first_call_s", "min_ms", "median_ms", "cpu_ms", "ratio_to_native")
    print(f"{'':<25}" + "".join(f"{key:>16}" for key in keys))
    for mode, times in report["times"].items():
        for name, row in times.items():
            cells = (f"{row[key]:.2f}" if key in row else "" for key in keys)
            line = f"{f'{mode} {name}':<25}" + "".join(f"{c:>16}" for c in cells)
            print(line.rstrip())
    print(f"native reference: {report['native']}; the ratio is that of the minima")
    text = "peak memory: {rss_peak_mb:.0f} MB, {rss_before_mb:.0f} before rendering"
    device = report["device_peak_mb"]
    device_text = f"; of the device: {device:.0f} MB" if device else ""
    print(text.format(**report) + device_text)
    if report["accuracy"] is None:
        print("accuracy: no gold for this scene and size")
    else:
        psnr, *errors = report["accuracy"].items()
        print(f"against the float64 gold: PSNR {psnr[1]:.1f} dB; relative errors of")
        print("gradients: " + ", ".join(f"{k[4:]} {v:.1e}" for k, v in errors))
    if report["peers"]:
        print("\npublished figures of the shared benchmark, measured there, not here:")
        print("\n".join(report["peers"]))


def _load(path: Path):
    spec = importlib.util.spec_from_file_location(f"bench_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _native_renderer(bench_dir: Path, scene):
    path = bench_dir / "impls" / "native.py"
    if not path.exists():
        return None, "not there"
    try:
        return _load(path).Impl(scene), "ran in turns with ours, in the same process"
    except (OSError, subprocess.CalledProcessError) as error:
        return None, f"could not be built: {error}"


def _count_intersections(scene) -> int:
    size = {"width": int(scene["width"]), "height": int(scene["height"])}
    count = jax.jit(lambda *a: rasterization(*a, **size, max_isects=1).num_isects[0])
    view = (scene["viewmat"][None], scene["K"][None])
    return int(count(*(scene[name] for name in LEAVES), *view))


def _core() -> str:
    if jax.default_backend() != "cpu":
        return "JAX"
    why_not = ffi.unavailable()
    return f"JAX ({why_not})" if why_not else "native"


def _describe_machine() -> dict[str, Any]:
    git = ["git", "-C", str(_REPO), "describe", "--always", "--dirty", "--abbrev=7"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    except OSError:  # There is no git.
        commit = ""
    return {
        "device": f"{jax.devices()[0].device_kind} ({platform.machine()})",
        "cpus": os.cpu_count(),
        "versions": f"npga_jax {__version__}, jax {jax.__version__}, numpy "
        f"{np.__version__}, python {platform.python_version()}",
        "commit": commit or "unknown",
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "core": _core(),
    }


if __name__ == "__main__":
    cli.run(main, BenchmarkConfig)
