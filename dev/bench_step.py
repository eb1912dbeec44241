"""Times the whole training step and its parts on made-up inputs (`benchmark.py step`).

The program is the one that training runs: F and G, rasterizer, losses, optimiser, with
the old state's memory given away. The parts are compiled alone, for a profile; they
need not add up to the step.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from bench_timing import Gate, device_peak_mb, time_in_turns
from synthetic_step import (
    SyntheticFootage,
    make_batch,
    make_last_step,
    make_state,
    step_config,
    step_method,
)

from npga_jax.avatar import (
    deform_gaussians,
    head_viewmats,
    render_views,
)
from npga_jax.core import Array, RenderOutput, memory, peak_rss_mb
from npga_jax.rasterizer import padded_capacity, rasterization, rasterization_pure
from npga_jax.training import (
    PresetName,
    composite_target,
    losses,
    parallel,
    run_optimizer,
)

_MOST_LOSS_ERROR, _MOST_NORM_ERROR = 1e-5, 1e-3


class Seen(NamedTuple):
    """What the terms that are timed look at (`avatar.StepView`)."""

    out: RenderOutput
    target: Array
    matte: Array


def measure(
    *,
    preset: PresetName,
    num_gaussians: int,
    width: int,
    height: int,
    views: int,
    num_devices: int,
    repeats: int,
    check_twin: bool,
) -> dict[str, Any]:
    """Everything that `print_report` and `gates` look at, ready for JSON.

    Args:
      check_twin: make one step with the pure rasterizer too.
    """
    rss_before = peak_rss_mb()
    cfg = step_config(preset, num_gaussians)
    footage = SyntheticFootage(width, height)
    # On the host: steps give the memory of what they get away.
    state = jax.tree.map(np.array, make_state(cfg, footage))
    batch = make_batch(footage, views)
    mesh = parallel.make_mesh(num_devices, views)
    parts, num_isects = _parts(cfg, footage, state, batch)
    max_isects = padded_capacity(num_isects)
    first, metrics, seconds = {}, {}, {}
    twins = {"native": rasterization, "pure": rasterization_pure}
    for name, fn in twins.items() if check_twin else [("native", rasterization)]:
        step, seconds[name] = _compile(cfg, footage, state, batch, mesh, max_isects, fn)
        first[name] = _read(
            step(_fresh(state, mesh), parallel.shard_batch(batch, mesh))[1]
        )
        if name == "native":
            times, metrics = _time_step(step, state, batch, mesh, repeats)
    part_times, _ = time_in_turns(parts, repeats)
    return {
        "preset": preset,
        "num_gaussians": num_gaussians,
        "width": width,
        "height": height,
        "views": views,
        "num_devices": mesh.size,
        "num_isects": num_isects,
        **dict(zip(("lower_s", "compile_s"), seconds["native"], strict=True)),
        "times": {"training step": times, **part_times},
        "first_step": first["native"],
        "first_step_pure": first.get("pure"),
        "last_step": metrics,
        "rss_before_mb": rss_before,
        "rss_peak_mb": peak_rss_mb(),
        "device_peak_mb": device_peak_mb(),
    }


def gates(report: dict[str, Any]) -> list[Gate]:
    """What must hold of a report."""
    last, first, pure = (
        report[k] for k in ("last_step", "first_step", "first_step_pure")
    )
    finite = min(first["is_finite"], last["is_finite"])
    found = [
        Gate("steps with a finite gradient", finite, ">= 1"),
        Gate("intersections without room", last["num_dropped"], "<= 0"),
    ]
    limits = {"loss": _MOST_LOSS_ERROR, "grad_norm": _MOST_NORM_ERROR}
    for name, limit in limits.items():
        error, note = None, "the pure path was not run"
        if pure:
            error, note = abs(first[name] / pure[name] - 1.0), ""
        found.append(
            Gate(f"{name} against the pure path's", error, f"<= {limit}", note)
        )
    return [gate._replace(name=f"step: {gate.name}") for gate in found]


def print_report(report: dict[str, Any]) -> None:
    print(
        "training step of preset {preset}: {num_gaussians} Gaussians, "
        "{width}x{height}, {views} view(s) on {num_devices} device(s), "
        "{num_isects} tile intersections\n"
        "lowered in {lower_s:.1f} s, compiled in {compile_s:.1f} s\n".format(**report)
    )
    keys = ("min_ms", "median_ms", "spread_ms", "cpu_ms")
    print(f"{'':<32}" + "".join(f"{key:>12}" for key in keys))
    for name, row in report["times"].items():
        print(f"{name:<32}" + "".join(f"{row[key]:>12.2f}" for key in keys))
    text = (
        "peak memory: {rss_peak_mb:.0f} MB, {rss_before_mb:.0f} before the first step"
    )
    device = report["device_peak_mb"]
    print(
        text.format(**report) + (f"; of the device: {device:.0f} MB" if device else "")
    )


def _compile(cfg, footage, state, batch, mesh, max_isects, rasterize_fn):
    """The compiled step, and the seconds that tracing and compiling took."""
    step = make_last_step(cfg, footage, max_isects, rasterize_fn)
    inputs = (_fresh(state, mesh), parallel.shard_batch(batch, mesh))
    start = time.perf_counter()
    lowered = parallel.data_parallel(step, mesh).lower(*inputs)
    middle = time.perf_counter()
    compiled = lowered.compile()
    seconds = (middle - start, time.perf_counter() - middle)
    advice = "Lower --num-gaussians, --width, --height or --views."
    memory.check_program(compiled, "the training step", advice)
    return compiled, seconds


def _time_step(step, state, batch, mesh, repeats):
    """Steps one after the other, as in training: each waits for the last one."""
    state, metrics = _fresh(state, mesh), {}

    def one_step():
        nonlocal state, metrics
        placed = parallel.shard_batch(batch, mesh)
        state, metrics = jax.block_until_ready(step(state, placed))

    times, _ = time_in_turns({"step": one_step}, repeats)
    return times["step"], _read(metrics)


def _fresh(state, mesh):
    """A copy, which a step may overwrite."""
    return jax.device_put(state, parallel.replicated(mesh), may_alias=False)


def _read(metrics) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def _parts(cfg, footage, state, batch) -> tuple[dict[str, Callable[[], Any]], int]:
    """Programs to time alone, and the intersections of the largest view."""
    method = step_method(cfg, rasterization)
    size = {"width": footage.width, "height": footage.height}
    viewmats = head_viewmats(jnp.asarray(batch.viewmats), batch.world_from_head)
    optimizer = run_optimizer(cfg, method)

    def deform(params):
        return deform_gaussians(method, params, state.alive, batch.expr)[0]

    def render(splats, max_isects):
        return render_views(
            method,
            state.params,
            splats,
            viewmats,
            batch.Ks,
            **size,
            max_isects=max_isects,
            with_screen=False,
        )[1]

    splats = jax.jit(deform)(state.params)
    counts = jax.jit(lambda s: render(s, 1).num_isects)(splats)
    num_isects = int(np.max(counts))
    capacity = padded_capacity(num_isects)
    out = jax.jit(lambda s: render(s, capacity))(splats)

    def with_vjp(fn, x, cotangents):
        values, pullback = jax.vjp(fn, x)
        return values, pullback(cotangents)

    def colors(splats):
        out = render(splats, capacity)
        return out.colors, out.alphas

    def loss(colors, alphas):
        target, matte = composite_target(batch.rgb, batch.alpha, 1.0)
        seen = out._replace(colors=colors, alphas=alphas)
        view: Any = Seen(seen, target, matte)
        return losses.l1(view) + losses.ssim(view) + losses.alpha(view)

    def update(grads, opt_state, params):
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    images = (out.colors, out.alphas)
    programs = {
        "F and G": (deform, state.params),
        "F and G, and gradient": (
            lambda p, d: with_vjp(deform, p, d),
            state.params,
            splats,
        ),
        "rasterizer": (colors, splats),
        "rasterizer, and gradient": (
            lambda s, d: with_vjp(colors, s, d),
            splats,
            images,
        ),
        "losses, and gradient": (jax.grad(loss, argnums=(0, 1)), *images),
        "optimiser": (update, state.params, state.opt_state, state.params),
    }

    def caller(fn, *inputs):
        jitted = jax.jit(fn)
        return lambda: jax.block_until_ready(jitted(*inputs))

    return {name: caller(*program) for name, program in programs.items()}, num_isects
