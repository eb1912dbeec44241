"""Times the head model beside the official code (`benchmark.py nphm`).

MonoNPHM's official sizes with random weights, which cost what trained ones do. Half of
the points lie close to anchors on a head-sized ellipsoid, half anywhere in the box that
heads are extracted from. Compilation and runs are timed apart.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from bench_timing import Gate, time_in_turns

from npga_jax.core import peak_rss_mb
from npga_jax.nphm import (
    POINT_ROWS,
    Codes,
    EnsembleMethod,
    HeadModel,
    deform,
    evaluate_points,
    evaluate_with_gradient,
    init_params,
    predict_anchors,
)


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


_MOST_TWIN_ERROR = 1e-4
"""Of distances and colours against the dense definition, relative to the largest."""


def measure(
    *, sizes: Any, num_points: int, repeats: int, twin_points: int
) -> dict[str, Any]:
    """Everything that `print_report` and `gates` look at, ready for JSON.

    Args:
      sizes: NPHMConfig.
      twin_points: at which the differentiable evaluation (blocks) and the plain
        definition (dense) are timed too; 0 leaves them out.
    """
    rss = peak_rss_mb()
    head, codes = make_head(sizes)
    points = make_points(head.params["anchors_mean"], num_points)
    possible = num_points * sizes.num_edges
    rows = {}
    calls = _deformation_calls(head, codes, points)
    for name, options in _ROWS.items():
        calls[name] = partial(evaluate_points, head, points, codes, **options)
    for name, call in calls.items():
        times, values = time_in_turns({name: call}, repeats)
        row = times[name]
        edges = values[name].num_edges if name in _ROWS else 0
        row["edges_computed"] = edges / possible
        row["gflop"] = count_flops(head, name, num_points, edges) / 1e9
        row["gflop_per_s"] = 1e3 * row["gflop"] / row["min_ms"]
        # The official figures are proportional to the number of points.
        scale = 1e3 * num_points / 100_000
        row["times_faster_cpu"] = OFFICIAL[name].cpu * scale / row["cpu_ms"]
        row["times_faster_wall"] = OFFICIAL[name].wall * scale / row["min_ms"]
        rows[name] = row
    twins = _measure_twins(head, codes, twin_points, repeats) if twin_points else {}
    return {
        "points": num_points,
        "edges_possible": possible,
        "rows": rows,
        "official_s_per_100k": {k: v._asdict() for k, v in OFFICIAL.items()},
        "rss_before_mb": rss,
        "rss_peak_mb": peak_rss_mb(),
        "twin_points": twin_points,
        "twins": twins,
    }


def gates(report: dict[str, Any]) -> list[Gate]:
    """What must hold of a report."""
    limit = f"<= {_MOST_TWIN_ERROR}"
    found = []
    for twin in ("streaming", "blocks"):
        for what in ("sdf", "color"):
            error = report["twins"].get(twin, {}).get(f"{what}_error")
            note = "" if error is not None else "no twin was evaluated"
            name = f"nphm: {what} of {twin} against the dense twin"
            found.append(Gate(name, error, limit, note))
    return found


def make_head(sizes: Any) -> tuple[Any, Any]:
    """Random weights, anchors on an ellipsoid, and small random codes."""
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
    low, high = _BOX
    anywhere = rng.uniform(low, high, (num_points - len(near), 3))
    return rng.permutation(np.concatenate([near, anywhere])).astype(np.float32)


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


def _measure_twins(head, codes, num_points, repeats) -> dict[str, dict[str, float]]:
    """Three ways to the full evaluation with gradient, at the same few points."""
    points = make_points(head.params["anchors_mean"], num_points)
    one = jax.tree.map(lambda x: jnp.asarray(x)[None], codes)

    def caller(method: EnsembleMethod) -> Callable[[], Any]:
        def evaluate(params, x):
            result, gradient = evaluate_with_gradient(
                params, head.cfg, x, one, method=method
            )
            return jax.tree.map(lambda v: v[0], (result.sdf, result.color, gradient))

        evaluate = jax.jit(evaluate)
        return lambda: jax.block_until_ready(evaluate(head.params, points[None]))

    options = _ROWS["full forward + gradient"]
    calls = {
        "streaming": partial(evaluate_points, head, points, codes, **options),
        "blocks": caller("blocks"),
        "dense": caller("dense"),
    }
    times, results = time_in_turns(calls, repeats)
    dense = [np.asarray(x) for x in results["dense"][:2]]
    for name, row in times.items():
        row["times_streaming_cpu"] = row["cpu_ms"] / times["streaming"]["cpu_ms"]
        for what, x, expected in zip(
            ("sdf", "color"), results[name][:2], dense, strict=True
        ):
            error = np.abs(x - expected).max() / np.abs(expected).max()
            row[f"{what}_error"] = float(error)
    return times


def print_report(report: dict[str, Any]) -> None:
    print(
        "head model: {points} points, {edges_possible} edges possible\n".format(
            **report
        )
    )
    heads = ("first s", "min ms", "median ms", "spread ms", "CPU s", "x CPU", "x wall")
    heads = (*heads, "edges")
    print(f"{'':<25}" + "".join(f"{h:>10}" for h in (*heads, "GFLOP", "GFLOP/s")))
    for name, row in report["rows"].items():
        edges = f"{100 * row['edges_computed']:.1f} %" if row["edges_computed"] else ""
        cells = (
            f"{row['first_call_s']:.1f}",
            f"{row['min_ms']:.0f}",
            f"{row['median_ms']:.0f}",
            f"{row['spread_ms']:.0f}",
            f"{row['cpu_ms'] / 1e3:.2f}",
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
            f"  {name:<12}{row['min_ms']:>8.0f} ms{row['cpu_ms'] / 1e3:>8.2f} CPU s, "
            f"{row['times_streaming_cpu']:.1f} times streaming's; first call "
            f"{row['first_call_s']:.1f} s; off the dense one by {row['sdf_error']:.1e}"
        )
