"""Times and checks the rasterizer (`benchmark.py renderer`).

Where the shared benchmark folder is there, its scene is used, the result is checked
against its float64 gold, and its native renderer runs in turns with ours (A B A B):
machines are noisy, ratios of minima less so.
"""

import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from bench_scenes import (
    LEAVES,
    count_intersections,
    load_module,
    make_head_scene,
    make_scene,
    shared_folder,
)
from bench_timing import Gate, device_peak_mb, time_in_turns
from standard_scene import Impl

from npga_jax.core import memory, peak_rss_mb
from npga_jax.rasterizer import rasterization, rasterization_reference

_MODES = {"forward": "fwd", "forward+backward": "fwdbwd"}
_MOST_TIMES_NATIVE = {"forward": 3.0, "forward+backward": 3.5}
_LEAST_PSNR, _MOST_GRADIENT_ERROR, _MOST_RSS_MB = 80.0, 1e-3, 1024.0
_COPIES_OF_IMAGE = 5
"""Which are there at once at least: target, image and its gradient, twice the last."""
_TWIN_SIZE = (2_000, 70, 100)


def measure(
    *,
    num_gaussians: int,
    width: int,
    height: int,
    channels: int,
    repeats: int,
    bench_dir: Path | None,
    compare: bool,
    check_twin: bool,
) -> dict[str, Any]:
    """Everything that `print_report` and `gates` look at, ready for JSON.

    Args:
      channels: of the colours; other than 3 for scaling alone, without a comparison.
      compare: run the native reference in turns, where there is one.
      check_twin: compare with the dense definition, on a small scene.
    """
    size = (num_gaussians, width, height)
    folder = shared_folder(bench_dir)
    scene_name, scene = make_scene(folder, *size)
    is_standard = scene_name == "standard" and channels == 3
    scene = with_channels(scene, channels)
    rss_before = peak_rss_mb()
    memory.check_room(
        _COPIES_OF_IMAGE * scene["target"].nbytes,
        f"rendering {width}x{height} pixels",
        "Lower --width, --height or --channels.",
    )
    ours = Impl(scene)
    native, native_note = None, "not asked for"
    if compare and is_standard:
        native, native_note = _native_renderer(folder, scene)
    report = {
        "num_gaussians": num_gaussians,
        "width": width,
        "height": height,
        "channels": channels,
        "scene": scene_name,
        "num_isects": count_intersections(scene),
        "native": native_note,
        "times": {},
    }
    for mode, method in _MODES.items():
        calls = {"npga_jax": getattr(ours, method)}
        if native is not None:
            calls["native"] = getattr(native, method)
        times, results = time_in_turns(calls, repeats, warmups=2)
        if native is not None:
            ratio = times["npga_jax"]["min_ms"] / times["native"]["min_ms"]
            times["npga_jax"]["ratio_to_native"] = ratio
        report["times"][mode] = times
    report |= {
        "rss_before_mb": rss_before,
        "rss_peak_mb": peak_rss_mb(),
        "device_peak_mb": device_peak_mb(),
    }
    gold = folder / "gold" / "gold_{}_{}x{}.npz".format(*size)
    use_gold = is_standard and gold.exists()
    image, grads = results["npga_jax"]
    report["accuracy"] = (
        compare_with_gold(image, grads, np.load(gold)) if use_gold else None
    )
    report["twin"] = _compare_with_twin() if check_twin else None
    readme = folder / "README.md"
    lines = readme.read_text().splitlines() if readme.exists() else []
    report["peers"] = [line for line in lines if line.startswith("|")]
    return report


def with_channels(scene: dict[str, Any], channels: int) -> dict[str, Any]:
    """The scene with its three colours repeated, or cut, to as many channels."""
    if channels == 3:
        return scene
    names = ("colors", "background", "target")
    wide = {
        name: np.resize(scene[name], (*scene[name].shape[:-1], channels))
        for name in names
    }
    return {**scene, **wide}


def compare_with_gold(image, grads, gold) -> dict[str, float]:
    """PSNR of the image, and per input the relative L2 error of its gradient."""
    error = np.asarray(image, np.float64) - gold["img"]
    result = {"psnr": float(-10 * np.log10(np.mean(error**2) + 1e-20))}
    for name in LEAVES:
        expected = gold["g_" + name].astype(np.float64)
        difference = np.linalg.norm(np.asarray(grads[name], np.float64) - expected)
        result["rel_" + name] = float(difference / np.linalg.norm(expected))
    return result


def gates(report: dict[str, Any]) -> list[Gate]:
    """What must hold of a report."""
    found = []
    for what, key in (("gold", "accuracy"), ("dense twin", "twin")):
        values = report[key] or {}
        note = "" if values else "no gold for this scene and size"
        found.append(
            Gate(
                f"PSNR against the {what}",
                values.get("psnr"),
                f">= {_LEAST_PSNR}",
                note,
            )
        )
        for leaf in LEAVES:
            name = f"gradient of {leaf} against the {what}"
            limit = f"<= {_MOST_GRADIENT_ERROR}"
            found.append(Gate(name, values.get("rel_" + leaf), limit, note))
    for mode, most in _MOST_TIMES_NATIVE.items():
        ratio = report["times"][mode]["npga_jax"].get("ratio_to_native")
        note = "" if ratio else f"native reference: {report['native']}"
        found.append(Gate(f"{mode}, times the native one's", ratio, f"<= {most}", note))
    found.append(Gate("peak MB", report["rss_peak_mb"], f"<= {_MOST_RSS_MB}"))
    return [gate._replace(name=f"renderer: {gate.name}") for gate in found]


def print_report(report: dict[str, Any]) -> None:
    print(
        "{num_gaussians} Gaussians, {width}x{height}, {channels} channels, "
        "{num_isects} tile intersections, scene: {scene}\n".format(**report)
    )
    keys = ("first_call_s", "min_ms", "median_ms", "spread_ms", "cpu_ms")
    keys = (*keys, "ratio_to_native")
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
    for what, key in (("the float64 gold", "accuracy"), ("the dense twin", "twin")):
        if report[key] is None:
            print(f"against {what}: not compared")
            continue
        psnr, *errors = report[key].items()
        print(f"against {what}: PSNR {psnr[1]:.1f} dB; relative errors of")
        print("gradients: " + ", ".join(f"{k[4:]} {v:.1e}" for k, v in errors))
    if report["peers"]:
        print("\npublished figures of the shared benchmark, measured there, not here:")
        print("\n".join(report["peers"]))


def _native_renderer(folder: Path, scene):
    path = folder / "impls" / "native.py"
    if not path.exists():
        return None, "not there"
    try:
        return load_module(path).Impl(scene), "ran in turns with ours, in one process"
    except (OSError, subprocess.CalledProcessError) as error:
        return None, f"could not be built: {error}"


def _compare_with_twin() -> dict[str, float]:
    """The rasterizer against its definition, on a head small enough for the latter."""
    scene = make_head_scene(*_TWIN_SIZE)
    # As many pixels to a Gaussian as in a large image.
    scene["scales"] = scene["scales"] * 3
    options = {
        "viewmats": scene["viewmat"][None],
        "Ks": scene["K"][None],
        "backgrounds": scene["background"][None],
        "width": scene["width"],
        "height": scene["height"],
        "max_isects": 2 * count_intersections(scene),
    }

    def loss(rasterize_fn, params):
        image = rasterize_fn(**params, **options).colors[0]
        return jnp.mean((image - scene["target"]) ** 2), image

    params = {name: jnp.asarray(scene[name]) for name in LEAVES}
    (grads, image), (expected_grads, expected) = (
        jax.jit(jax.grad(partial(loss, fn), has_aux=True))(params)
        for fn in (rasterization, rasterization_reference)
    )
    gold = {"img": np.asarray(expected, np.float64)}
    gold |= {f"g_{name}": np.asarray(expected_grads[name]) for name in LEAVES}
    return compare_with_gold(image, grads, gold)
