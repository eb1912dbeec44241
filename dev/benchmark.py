"""Measures speed, memory and accuracy: `benchmark.py {renderer,step,nphm,all}`.

Compilation and runs are timed apart. `--gate` turns what must hold into an exit code.
"""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any, Literal

import tyro
from size_limits import check_sizes

from npga_jax.app import cli
from npga_jax.core import InputError, check_output, runtime, write_json
from npga_jax.training import PresetName

_PARTS = ("renderer", "step", "nphm")
_RENDERER_SIZE, _STEP_SIZE = (50_000, 550, 802), (20_000, 275, 401)
_REPEATS = {"renderer": 9, "step": 9, "nphm": 3}


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """Measure speed, memory and accuracy."""

    what: tyro.conf.Positional[Literal["renderer", "step", "nphm", "all"]]
    """Which part to measure: the rasterizer, the whole training step, the head model.
    """
    num_gaussians: int | None = None
    """Size of the scene; default: 50,000 for the renderer, 20,000 for the step."""
    width: int | None = None
    """Width of the image in pixels; default: 550 for the renderer, 275 for the step."""
    height: int | None = None
    """Height of the image in pixels; default: 802 for the renderer, 401 for the step.
    """
    channels: int = 3
    """Channels that the renderer composites."""
    views: int = 1
    """Views of a training step."""
    num_devices: int = 1
    """Devices of a training step; more than 1 splits a CPU, which is for tests."""
    preset: PresetName = "quick"
    """Whose losses and networks the training step has, at the end of a run."""
    points: int = 100_000
    """Points that the head model is evaluated at."""
    twin_points: int = 5_000
    """Points for the head model's differentiable and plain evaluations; 0: none."""
    repeats: int | None = None
    """Timed runs of each kind, after those that compile and warm up; default: 9, and 3
    of the head model."""
    bench_dir: Path | None = None
    """The shared benchmark; default: ../shared/bench beside the repository."""
    compare: bool = True
    """Run the shared benchmark's native renderer in turns with ours, and check results
    against slower twins."""
    cache: bool = False
    """Keep compiled programs on disk, as training does: the second run then shows what
    a warm start takes."""
    gate: bool = False
    """Exit with 1 where a result is wrong, or slower than it must be."""
    scaling: bool = False
    """Instead, repeat renderer or step over fixed sizes, each in a process of its own;
    of the other options only --repeats, --gate and --output count then."""
    output: Path | None = None
    """JSON file for the numbers."""


def main(cfg: BenchmarkConfig) -> None:
    check(cfg)
    if cfg.scaling:
        import bench_scaling

        parts = _PARTS[:2] if cfg.what == "all" else (cfg.what,)
        report = bench_scaling.measure(parts, repeats=cfg.repeats or 3)
        bench_scaling.print_report(report)
        missed = bench_scaling.missed(report)
    else:
        report = measure(cfg)
        missed = [gate for gate in report["gates"] if gate["passed"] is False]
    if cfg.output is not None:
        cfg.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(cfg.output, report)
        print(f"\nwrote {cfg.output}")
    if cfg.gate and missed:
        print(f"{len(missed)} of what --gate asks for was missed")
        sys.stdout.flush()
        sys.exit(1)


def check(cfg: BenchmarkConfig) -> None:
    """Raises InputError for what cannot be measured."""
    names = ("num_gaussians", "width", "height", "channels", "views", "num_devices")
    names = (*names, "points", "twin_points", "repeats")
    check_sizes(**{name: getattr(cfg, name) for name in names})
    if cfg.views % cfg.num_devices:
        raise InputError(
            f"--views {cfg.views} cannot be shared among --num-devices "
            f"{cfg.num_devices}; pass a multiple."
        )
    if cfg.bench_dir is not None:
        from bench_scenes import shared_folder

        shared_folder(cfg.bench_dir)
    check_output(cfg.output)
    if cfg.scaling and cfg.what == "nphm":
        raise InputError("--scaling is for the renderer and the training step.")


def measure(cfg: BenchmarkConfig) -> dict[str, Any]:
    """Measures and prints the parts that are asked for, ready for JSON."""
    runtime.use_wide_vectors()
    if cfg.num_devices > 1:
        runtime.use_cpu_devices(cfg.num_devices)
    if cfg.cache:
        runtime.use_compilation_cache()
    # Imported here, so that JAX finds the settings above.
    from bench_timing import describe_machine

    load_before = os.getloadavg()[0]
    report: dict[str, Any] = {}
    gates = []
    for part in _PARTS if cfg.what == "all" else (cfg.what,):
        module, report[part] = _MEASURE[part](cfg)
        module.print_report(report[part])
        print()
        gates += module.gates(report[part])
    report["machine"] = {
        **describe_machine(),
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
    }
    print(
        "{device}, {cpus} CPUs, load {load_before:.1f} to {load_after:.1f}, "
        "{versions}, commit {commit}\nXLA_FLAGS={xla_flags}, "
        "core of the rasterizer: {core}".format(**report["machine"])
    )
    report["gates"] = [{**gate._asdict(), "passed": gate.passed} for gate in gates]
    if cfg.gate:
        print_gates(report["gates"])
    return report


def print_gates(gates: list[dict[str, Any]]) -> None:
    """Each with its number."""
    words = {True: "passed", False: "MISSED", None: "not checked"}
    print()
    for gate in gates:
        value = gate["note"] if gate["value"] is None else f"{gate['value']:.3g}"
        limit = gate["limit"]
        print(f"{words[gate['passed']]:<12}{gate['name']}: {value} ({limit})")


def _size(cfg: BenchmarkConfig, default: tuple[int, int, int]) -> dict[str, int]:
    names = ("num_gaussians", "width", "height")
    return {
        name: getattr(cfg, name) or value
        for name, value in zip(names, default, strict=True)
    }


def _measure_renderer(cfg: BenchmarkConfig):
    import bench_renderer

    return bench_renderer, bench_renderer.measure(
        **_size(cfg, _RENDERER_SIZE),
        channels=cfg.channels,
        repeats=cfg.repeats or _REPEATS["renderer"],
        bench_dir=cfg.bench_dir,
        compare=cfg.compare,
        check_twin=cfg.compare,
    )


def _measure_step(cfg: BenchmarkConfig):
    import bench_step

    return bench_step, bench_step.measure(
        preset=cfg.preset,
        **_size(cfg, _STEP_SIZE),
        views=cfg.views,
        num_devices=cfg.num_devices,
        repeats=cfg.repeats or _REPEATS["step"],
        check_twin=cfg.compare,
    )


def _measure_nphm(cfg: BenchmarkConfig):
    import bench_nphm

    from npga_jax.nphm import NPHMConfig

    return bench_nphm, bench_nphm.measure(
        sizes=NPHMConfig(),
        num_points=cfg.points,
        repeats=cfg.repeats or _REPEATS["nphm"],
        twin_points=cfg.twin_points,
    )


_MEASURE = {
    "renderer": _measure_renderer,
    "step": _measure_step,
    "nphm": _measure_nphm,
}


if __name__ == "__main__":
    cli.run(main, BenchmarkConfig)
