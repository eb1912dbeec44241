"""Times the head model: `python experiments/benchmark_nphm.py`.

MonoNPHM's official sizes with random weights, which cost what trained ones do. Half of
the points lie close to anchors on a head-sized ellipsoid, half anywhere in the box that
heads are extracted from. Compilation and runs are timed apart.
"""

import dataclasses
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from npga_jax import cli, runtime
from npga_jax.errors import InputError
from npga_jax.loop import peak_rss_mb


class Official(NamedTuple):
    """Seconds that the official code takes for 100k points."""

    cpu: float
    wall: float


OFFICIAL = {
    "deformation": Official(3.1, 4.8),
    "deformation + vjp": Official(6.0, 3.9),
    "SDF": Official(9.1, 5.4),
    "SDF + colour": Official(15.0, 9.1),
    "full forward": Official(18.1, 12.2),
    "full forward + gradient": Official(39.9, 45.7),
}
"""MonoNPHM e9a30f5 with torch 2.13, its full configuration, as published with the
shared goldens: on two shared CPU cores, of runs with one and two threads the better one
in each column. Walls are upper bounds, for other work was running."""

_ROWS = {
    "SDF": {"posed": False},
    "SDF + colour": {"posed": False, "with_color": True},
    "full forward": {"posed": True, "with_color": True},
    "full forward + gradient": {
        "posed": True,
        "with_color": True,
        "with_gradient": True,
    },
}
"""What is evaluated, and how `evaluate_points` is asked for it."""

_BOX = np.array([[-0.55, -0.5, -0.95], [0.55, 0.75, 0.4]])
_HEAD_CENTER, _HEAD_RADII = np.array([0, 0.05, -0.15]), np.array([0.33, 0.45, 0.4])


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """Measure speed and memory of the head model, beside the official code's."""

    points: int = 100_000
    """Number of points."""
    repeats: int = 3
    """Timed runs of each kind, after one that compiles."""
    twin_points: int = 5_000
    """Points at which the differentiable evaluation (blocks) and the plain definition
    (dense) are timed too; 0 leaves them out."""
    json: Path | None = None
    """JSON file for the numbers."""


def main(cfg: BenchmarkConfig) -> None:
    if min(cfg.points, cfg.repeats) < 1 or cfg.twin_points < 0:
        raise InputError(
            f"--points {cfg.points}, --repeats {cfg.repeats} and --twin-points "
            f"{cfg.twin_points} cannot be measured; give 1, 1 and 0 or more."
        )
    if cfg.json is not None and cfg.json.is_dir():
        raise InputError(f"--json {cfg.json} is a folder; give a file.")
    runtime.configure()
    from npga_jax.nphm.config import NPHMConfig

    report = measure(cfg, NPHMConfig())
    print_report(report)
    if cfg.json is not None:
        cfg.json.parent.mkdir(parents=True, exist_ok=True)
        cfg.json.write_text(json.dumps(report, indent=2) + "\n")
        print(f"wrote {cfg.json}")


def measure(cfg: BenchmarkConfig, sizes: Any) -> dict[str, Any]:
    """Everything that `print_report` shows, ready for JSON.

    Args:
      cfg: settings.
      sizes: NPHMConfig.
    """
    import jax

    from npga_jax.nphm.streaming import evaluate_points

    load, rss = os.getloadavg()[0], peak_rss_mb()
    head, codes = make_head(sizes)
    points = make_points(head.params["anchors_mean"], cfg.points)
    possible = cfg.points * sizes.num_edges
    rows = {}
    calls = _deformation_calls(head, codes, points)
    for name, options in _ROWS.items():
        calls[name] = partial(evaluate_points, head, points, codes, **options)
    for name, call in calls.items():
        row, values = time_call(call, cfg.repeats)
        edges = values.num_edges if name in _ROWS else 0
        row["edges_computed"] = edges / possible
        row["gflop"] = count_flops(head, name, cfg.points, edges) / 1e9
        row["gflop_per_s"] = row["gflop"] / row["min_s"]
        # The official figures are proportional to the number of points.
        scale = cfg.points / 100_000
        row["times_faster_cpu"] = OFFICIAL[name].cpu * scale / row["cpu_s"]
        row["times_faster_wall"] = OFFICIAL[name].wall * scale / row["min_s"]
        rows[name] = row
    return {
        "points": cfg.points,
        "edges_possible": possible,
        "rows": rows,
        "official_s_per_100k": {k: v._asdict() for k, v in OFFICIAL.items()},
        "rss_before_mb": rss,
        "rss_peak_mb": peak_rss_mb(),
        "twin_points": cfg.twin_points,
        "twins": _measure_twins(cfg, head, codes) if cfg.twin_points else {},
        "device": jax.devices()[0].device_kind,
        "cpus": os.cpu_count(),
        "load_before": load,
        "load_after": os.getloadavg()[0],
        "jax": jax.__version__,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def make_head(sizes: Any) -> tuple[Any, Any]:
    """Random weights, anchors on an ellipsoid, and small random codes."""
    import jax

    from npga_jax.nphm.codes import Codes
    from npga_jax.nphm.model import HeadModel, init_params

    rng = np.random.default_rng(0)
    directions = rng.normal(size=(sizes.num_anchors, 3))
    # Real anchors are on the face and the sides: none at the back.
    directions[:, 2] = np.abs(directions[:, 2]) - 0.3
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    left = slice(1, 2 * sizes.num_symm_pairs, 2)
    directions[left] = directions[: 2 * sizes.num_symm_pairs : 2] * [-1, 1, 1]
    anchors = (_HEAD_CENTER + directions * _HEAD_RADII).astype(np.float32)
    widths = (sizes.lat_dim_geo, sizes.lat_dim_app, sizes.lat_dim_exp)
    codes = Codes(*(rng.normal(0, 0.02, n).astype(np.float32) for n in widths))
    return HeadModel(sizes, init_params(jax.random.key(0), sizes, anchors)), codes


def make_points(anchors: np.ndarray, num_points: int) -> np.ndarray:
    """Half within about 0.05 units of an anchor, half anywhere in the box: [N, 3]."""
    rng = np.random.default_rng(1)
    near = np.asarray(anchors)[rng.integers(0, len(anchors), num_points // 2)]
    near = near + rng.normal(0, 0.05, near.shape)
    anywhere = rng.uniform(*_BOX, (num_points - len(near), 3))
    return rng.permutation(np.concatenate([near, anywhere])).astype(np.float32)


def time_call(call: Callable[[], Any], repeats: int) -> tuple[dict[str, float], Any]:
    """Seconds of the first call and of the later ones; and what the last returned."""

    def run() -> tuple[float, float, Any]:
        start = time.perf_counter(), time.process_time()
        result = call()
        return time.perf_counter() - start[0], time.process_time() - start[1], result

    first, _, result = run()
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu, result = run()
        walls.append(wall)
        cpus.append(cpu)
    times = {
        "first_call_s": first,
        "min_s": min(walls),
        "median_s": float(np.median(walls)),
        "cpu_s": min(cpus),
    }
    return times, result


def count_flops(head: Any, name: str, num_points: int, num_edges: int) -> float:
    """Operations of the products that a row asks for.

    What the code alone determines counts once per head, which is nothing; rows of
    blocks that hold no edge, and what is computed twice to save memory, do not count.
    """
    sizes, params = head.cfg, head.params
    identity, deformation = params["identity"], params["deformation"]["layers"]

    def weights(layers: list[dict[str, Any]]) -> float:
        return sum(float(np.prod(layer["w"].shape[-2:])) for layer in layers)

    # The condition enters two layers.
    deform = weights(deformation)
    condition = deformation[0]["w"].shape[0] - 3
    skip = deformation[(len(deformation) - 1) // 2]
    deform -= condition * (deformation[0]["w"].shape[1] + skip["w"].shape[1])
    geo = weights(identity["geo"][1:]) + sizes.query_dim * sizes.hidden_dim_geo
    app = weights(identity["app"][1:]) + sizes.bottleneck_dim * sizes.hidden_dim_app
    app += weights(identity["bottleneck"])
    options = _ROWS.get(name, {})
    gradient = 2 if options.get("with_gradient") else 1
    if name not in _ROWS:
        return 2 * num_points * deform * (2 if "vjp" in name else 1)
    per_edge = geo * gradient + (app if options.get("with_color") else 0)
    per_point = deform * gradient if options["posed"] else 0
    return 2 * (num_edges * per_edge + num_points * per_point)


def _deformation_calls(head, codes, points) -> dict[str, Callable[[], Any]]:
    """The deformation alone, in blocks as large as those of the full evaluation."""
    import jax
    import jax.numpy as jnp

    from npga_jax.nphm.model import deform, predict_anchors
    from npga_jax.nphm.streaming import POINT_ROWS

    padded = np.resize(points, (-(-len(points) // POINT_ROWS), POINT_ROWS, 3))
    codes = jax.tree.map(lambda x: jnp.asarray(x)[None], codes)

    def deformed(params, x):
        anchors = predict_anchors(params, head.cfg, codes.geo)
        return deform(params, head.cfg, x[None], codes, anchors)[0]

    def with_vjp(params, x):
        queries, pullback = jax.vjp(partial(deformed, params), x)
        return queries, pullback(jnp.ones_like(queries))[0]

    def caller(fn: Callable) -> Callable[[], Any]:
        blocks = jax.jit(lambda params, x: jax.lax.map(partial(fn, params), x))
        return lambda: jax.block_until_ready(blocks(head.params, padded))

    return {"deformation": caller(deformed), "deformation + vjp": caller(with_vjp)}


def _measure_twins(cfg, head, codes) -> dict[str, dict[str, float]]:
    """Three ways to the full evaluation with gradient, at the same few points."""
    import jax
    import jax.numpy as jnp

    from npga_jax.nphm.model import evaluate_with_gradient
    from npga_jax.nphm.streaming import evaluate_points

    points = make_points(head.params["anchors_mean"], cfg.twin_points)
    one = jax.tree.map(lambda x: jnp.asarray(x)[None], codes)

    def caller(method: str) -> Callable[[], Any]:
        def evaluate(params, x):
            result, gradient = evaluate_with_gradient(
                params, head.cfg, x, one, method=method
            )
            return result.sdf, result.color, gradient

        evaluate = jax.jit(evaluate)
        return lambda: jax.block_until_ready(evaluate(head.params, points[None]))

    options = _ROWS["full forward + gradient"]
    calls = {
        "streaming": partial(evaluate_points, head, points, codes, **options),
        "blocks": caller("blocks"),
        "dense": caller("dense"),
    }
    times = {name: time_call(call, cfg.repeats)[0] for name, call in calls.items()}
    for row in times.values():
        row["times_streaming_cpu"] = row["cpu_s"] / times["streaming"]["cpu_s"]
    return times


def print_report(report: dict[str, Any]) -> None:
    print(
        "{points} points, {edges_possible} edges possible; {device}, {cpus} CPUs, load "
        "{load_before:.1f} to {load_after:.1f}, jax {jax}\n"
        "XLA_FLAGS={xla_flags}\n".format(**report)
    )
    heads = ("first s", "min ms", "median ms", "CPU s", "x CPU", "x wall", "edges")
    print(f"{'':<25}" + "".join(f"{h:>10}" for h in (*heads, "GFLOP", "GFLOP/s")))
    for name, row in report["rows"].items():
        edges = f"{100 * row['edges_computed']:.1f} %" if row["edges_computed"] else ""
        cells = (
            f"{row['first_call_s']:.1f}",
            f"{1e3 * row['min_s']:.0f}",
            f"{1e3 * row['median_s']:.0f}",
            f"{row['cpu_s']:.2f}",
            f"{row['times_faster_cpu']:.1f}",
            f"{row['times_faster_wall']:.1f}",
            edges,
            f"{row['gflop']:.0f}",
            f"{row['gflop_per_s']:.0f}",
        )
        print(f"{name:<25}" + "".join(f"{c:>10}" for c in cells))
    print(
        "x: times faster than the official PyTorch code (2.13, CPU, two shared cores), "
        "by published figures,\nnot measured here; walls there are upper bounds.\n"
        "peak memory: {rss_peak_mb:.0f} MB, {rss_before_mb:.0f} before".format(**report)
    )
    if report["twins"]:
        print(f"\nfull forward + gradient at {report['twin_points']} points:")
    for name, row in report["twins"].items():
        print(
            f"  {name:<12}{1e3 * row['min_s']:>8.0f} ms{row['cpu_s']:>8.2f} CPU s, "
            f"{row['times_streaming_cpu']:.1f} times streaming's; first call "
            f"{row['first_call_s']:.1f} s"
        )


if __name__ == "__main__":
    cli.run(main, BenchmarkConfig)
