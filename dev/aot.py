"""Compiles for a GPU or TPU that is not there: `aot.py --target tpu-v5e`.

Shows before one has the device that the renderer and the whole training step compile
for it, how long that takes, and how much memory they will ask for. Nothing is run.
"""

import contextlib
import dataclasses
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from size_limits import check_sizes

from npga_jax.app import cli
from npga_jax.core import InputError, check_output, write_json
from npga_jax.training import PresetName

TargetName = Literal["tpu-v5e", "tpu-v6e", "h100", "cuda-lowering", "tpu-lowering"]


class Target(NamedTuple):
    """A device, and what compiling for it takes."""

    platform: str
    topology: str = ""
    memory: int = 0  # bytes
    module: str = ""  # the package that holds the compiler; none: lowering alone
    install: str = ""


_TPU = {"platform": "tpu", "module": "libtpu", "install": "libtpu"}
TARGETS: dict[str, Target] = {
    "tpu-v5e": Target(**_TPU, topology="v5e:2x2", memory=16 * 2**30),
    "tpu-v6e": Target(**_TPU, topology="v6e:2x2", memory=32 * 2**30),
    "h100": Target(
        "cuda",
        memory=84_929_347_584,
        module="jax_plugins.xla_cuda12",
        install="'jax[cuda12]'",
    ),
    "cuda-lowering": Target("cuda"),
    "tpu-lowering": Target("tpu"),
}
"""Memory as the vendors state it; a chip keeps a little for itself."""

_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132
  fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 84929347584
  shared_memory_per_block_optin: 232448 cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 7 }
runtime_version { major: 12 minor: 8 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
"""What XLA's GPU compiler wants to know of a device that is not there."""

_PROGRAMS = {"renderer": ("renderer",), "step": ("step",), "all": ("renderer", "step")}


@dataclasses.dataclass(frozen=True)
class AotConfig:
    """Compile ahead of time for an accelerator, without having it."""

    target: TargetName
    """What to compile for; *-lowering stops before the compiler and needs none."""
    what: Literal["renderer", "step", "all"] = "all"
    """The renderer alone (forward, and with its gradient), the training step, or both.
    """
    preset: PresetName = "quick"
    """Whose losses and networks the training step has, at the end of a run."""
    num_gaussians: int = 50_000
    """Gaussians in the cloud."""
    width: int = 550
    """Width of the images in pixels."""
    height: int = 802
    """Height of the images in pixels."""
    views: int = 1
    """Views of a training step."""
    max_isects: int = 0
    """Room for tile intersections; 0: what a head of that size takes, and half more."""
    output: Path | None = None
    """JSON file for the numbers."""


class Program(NamedTuple):
    """Something to compile."""

    name: str
    jitted: Callable
    shapes: tuple[Any, ...]
    max_isects: int


def main(cfg: AotConfig) -> None:
    names = ("num_gaussians", "width", "height", "views", "max_isects")
    check_sizes(**{name: getattr(cfg, name) for name in names})
    check_output(cfg.output)
    target = TARGETS[cfg.target]
    check_installed(cfg.target, target)
    _prepare_process()
    import jax

    devices = topology_devices(target) if target.module else jax.devices()[:1]
    rows = [compile_program(program, target) for program in programs(cfg, devices[0])]
    report = {
        **{k: getattr(cfg, k) for k in ("target", "preset", "num_gaussians", "width")},
        "height": cfg.height,
        "views": cfg.views,
        "device": devices[0].device_kind if target.module else "none (lowering alone)",
        "device_memory": target.memory,
        "jax": jax.__version__,
        "programs": rows,
    }
    print_report(report)
    if cfg.output is not None:
        cfg.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(cfg.output, report)
        print(f"wrote {cfg.output}")


def check_installed(name: str, target: Target) -> None:
    """Raises InputError where the compiler of a target is missing."""
    package = target.module.split(".")[0]
    if package and not (
        importlib.util.find_spec(package) and importlib.util.find_spec(target.module)
    ):
        raise InputError(
            f"--target {name} needs the compiler in {target.module}: pip install "
            f"{target.install}; --target {target.platform}-lowering does without."
        )


def topology_devices(target: Target) -> list[Any]:
    """Devices that can be compiled for, but not used."""
    from jax.experimental import topologies

    if target.platform == "cuda":
        topology = topologies.get_topology_desc(
            platform="cuda",
            topology_name="",
            target_config=_H100,
            topology="1x1x1",
        )
    else:
        topology = topologies.get_topology_desc(
            platform="tpu", topology_name=target.topology
        )
    return topology.devices


def gpu_mesh(axes: tuple[str, ...]) -> Any:
    """An H100 that is not there, in a mesh of one device."""
    from jax.sharding import AbstractDevice, AbstractMesh, AxisType

    device = AbstractDevice(
        device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu"
    )
    ones, types = (1,) * len(axes), (AxisType.Auto,) * len(axes)
    return AbstractMesh(ones, axes, types, abstract_device=device)


def beside_a_gpu() -> contextlib.AbstractContextManager:
    """Where kernels for GPUs are traced and lowered as if there were one.

    JAX asks which one it is, from version 0.11 on.
    """
    import jax

    return jax.sharding.use_abstract_mesh(gpu_mesh(()))


def programs(cfg: AotConfig, device: Any) -> Iterator[Program]:
    """What is to be compiled for the device, one after the other."""
    from npga_jax.rasterizer import Blocking, rasterization_pallas, rasterization_pure

    # `rasterization` would look at this process's own platform, which is a CPU. On a
    # GPU it takes these kernels, on a TPU the pure path.
    kernels = rasterization_pallas
    if TARGETS[cfg.target].platform == "cuda":
        kernels = partial(kernels, blocking=Blocking())
    rasterizers = {"": rasterization_pure, "Pallas": kernels}
    # Their tiles differ in size.
    rooms = {
        label: cfg.max_isects or _typical_capacity(cfg, rasterize_fn)
        for label, rasterize_fn in rasterizers.items()
    }
    for what in _PROGRAMS[cfg.what]:
        for label, rasterize_fn in rasterizers.items():
            make = _renderer_programs if what == "renderer" else _step_programs
            for program in make(cfg, device, rooms[label], rasterize_fn):
                yield program._replace(name=f"{program.name} {label}".rstrip())


def _renderer_programs(cfg, device, max_isects, rasterize_fn) -> list[Program]:
    import jax
    import jax.numpy as jnp
    from jax.sharding import SingleDeviceSharding

    def shape(*dims):
        sharding = SingleDeviceSharding(device)
        return jax.ShapeDtypeStruct(dims, jnp.float32, sharding=sharding)

    n = cfg.num_gaussians
    gaussians = tuple(shape(n, *tail) for tail in ((3,), (4,), (3,), (), (3,)))
    view = (shape(cfg.views, 4, 4), shape(cfg.views, 3, 3))
    size = {"width": cfg.width, "height": cfg.height, "max_isects": max_isects}

    def render(gaussians, viewmats, Ks):
        out = rasterize_fn(*gaussians, viewmats, Ks, **size)
        return out.colors, out.num_isects

    def loss(gaussians, viewmats, Ks, target):
        colors, num_isects = render(gaussians, viewmats, Ks)
        return jnp.mean((colors - target) ** 2), num_isects

    target = shape(cfg.views, cfg.height, cfg.width, 3)
    with_gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return [
        Program("renderer forward", jax.jit(render), (gaussians, *view), max_isects),
        Program(
            "renderer forward+backward",
            with_gradient,
            (gaussians, *view, target),
            max_isects,
        ),
    ]


def _step_programs(cfg, device, max_isects, rasterize_fn) -> list[Program]:
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding
    from synthetic_step import (
        SyntheticFootage,
        batch_shapes,
        make_last_step,
        step_config,
        step_method,
    )

    from npga_jax.training import parallel, state_template

    config = step_config(cfg.preset, cfg.num_gaussians)
    footage = SyntheticFootage(cfg.width, cfg.height)
    step = make_last_step(config, footage, max_isects, rasterize_fn)
    axes = (parallel.AXIS_NAME,)
    mesh = Mesh(np.array([device]), axes)
    if cfg.target == "cuda-lowering":
        mesh = gpu_mesh(axes)

    def place(shape, spec):
        sharding = NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

    whole = parallel.replicated(mesh).spec
    method = step_method(config, rasterize_fn)
    state = state_template(config, method, footage.expr_names)
    state = jax.tree.map(lambda x: place(x, whole), state)
    batch = jax.tree.map(place, batch_shapes(footage, cfg.views), parallel.BATCH_SPECS)
    jitted = parallel.data_parallel(step, mesh)
    name = f"training step ({cfg.preset})"
    return [Program(name, jitted, (state, batch), max_isects)]


def compile_program(program: Program, target: Target) -> dict[str, Any]:
    """Seconds and bytes of one program; the latter only where there is a compiler."""
    with beside_a_gpu() if target.platform == "cuda" else contextlib.nullcontext():
        return _compile_program(program, target)


def _compile_program(program: Program, target: Target) -> dict[str, Any]:
    from npga_jax.core import is_lack_of_memory, program_bytes

    _say(f"{program.name}: lowering, with room for {program.max_isects} intersections")
    start = time.perf_counter()
    traced = program.jitted.trace(*program.shapes)
    row = {"name": program.name, "max_isects": program.max_isects}
    if not target.module:
        traced.lower(lowering_platforms=(target.platform,))
        return {**row, "lower_s": time.perf_counter() - start}
    lowered = traced.lower()
    row["lower_s"] = time.perf_counter() - start
    _say(f"{program.name}: compiling (lowered in {row['lower_s']:.1f} s)")
    start = time.perf_counter(), time.process_time()
    try:
        compiled = lowered.compile()
    except Exception as error:
        # Some compilers refuse what the device has no memory for.
        if not is_lack_of_memory(error):
            raise
        _say(str(error).split("\n")[0])
        return {**row, "fits": False}
    row["compile_s"] = time.perf_counter() - start[0]
    row["compile_cpu_s"] = time.process_time() - start[1]
    sizes = program_bytes(compiled)
    row |= {f"{kind}_bytes": size for kind, size in sizes.items()}
    return {**row, "fits": sizes["total"] <= target.memory}


def print_report(report: dict[str, Any]) -> None:
    memory = report["device_memory"]
    print(
        "{num_gaussians} Gaussians, {width}x{height}, {views} view(s); device: "
        "{device}, jax {jax}".format(**report)
        + (f", {memory / 2**30:.0f} GiB" if memory else "")
    )
    kinds = ("argument", "output", "temp", "generated_code", "total")
    heads = ("lower s", "compile s", "CPU s")
    heads = (*heads, *(f"{k.split('_')[-1]} MiB" for k in kinds))
    print(f"{'':<34}" + "".join(f"{h:>14}" for h in heads) + "  fits")
    for row in report["programs"]:
        cells, fits = [f"{row['lower_s']:.1f}"] + ["-"] * (2 + len(kinds)), "-"
        if "compile_s" in row:
            sizes = (row[f"{kind}_bytes"] / 2**20 for kind in kinds)
            seconds = (row[k] for k in ("lower_s", "compile_s", "compile_cpu_s"))
            cells = [f"{value:.1f}" for value in (*seconds, *sizes)]
        if "fits" in row:
            fits = "yes" if row["fits"] else "no"
        print(f"{row['name']:<34}" + "".join(f"{c:>14}" for c in cells) + f"  {fits}")


def _typical_capacity(cfg: AotConfig, rasterize_fn: Callable) -> int:
    from bench_scenes import count_intersections, make_head_scene

    from npga_jax.rasterizer import padded_capacity

    scene = make_head_scene(cfg.num_gaussians, cfg.width, cfg.height)
    return padded_capacity(count_intersections(scene, rasterize_fn))


def _prepare_process() -> None:
    """Settings that have to be made before JAX is imported."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    # What is timed is a cold compilation.
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    # No device, so nothing to choose among kernels by.
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_autotune_level=0".strip()
    # libtpu would ask the cloud what machine this is.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "none")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    # Nor is there a chip that two processes could quarrel about.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    cli.run(main, AotConfig)
