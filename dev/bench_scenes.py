"""Scenes to measure with: the shared benchmark's where it is there, else one's own."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from npga_jax.core import InputError, RasterizeFn
from npga_jax.rasterizer import rasterization_pure

REPO = Path(__file__).resolve().parents[1]
LEAVES = ("means", "quats", "scales", "opacities", "colors")
"""What a scene has of each Gaussian; gradients are taken with respect to them."""

_HEAD_RADII = np.array([0.095, 0.125, 0.11])


def load_module(path: Path) -> ModuleType:
    """A file of the shared benchmark, run.

    Raises:
      InputError: if it cannot be.
    """
    spec = importlib.util.spec_from_file_location(f"bench_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(
            f"{path} of the shared benchmark is no Python file; choose another with "
            "--bench-dir."
        )
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{path} of the shared benchmark cannot be run "
            f"({type(error).__name__}: {error}); choose another with --bench-dir."
        ) from error
    return module


def shared_folder(bench_dir: Path | None) -> Path:
    """The shared benchmark's folder, whether it is there or not."""
    if bench_dir is not None and not (bench_dir / "scene.py").exists():
        raise InputError(f"--bench-dir {bench_dir} has no scene.py.")
    return bench_dir or REPO.parent / "shared" / "bench"


def make_scene(
    bench_dir: Path, num_gaussians: int, width: int, height: int
) -> tuple[str, dict[str, Any]]:
    """The scene of a size, and what to call it."""
    size = (num_gaussians, width, height)
    if (bench_dir / "scene.py").exists():
        return "standard", load_module(bench_dir / "scene.py").make_scene(*size)
    name = "own (no shared benchmark folder: not comparable with its figures)"
    return name, make_head_scene(*size)


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


def count_intersections(
    scene: dict[str, Any], rasterize_fn: RasterizeFn = rasterization_pure
) -> int:
    """Pairs of Gaussian and tile that a rasterizer wants room for.

    Args:
      rasterize_fn: not a native one; the compiler drops all but the counting.
    """
    size = {"width": int(scene["width"]), "height": int(scene["height"])}

    @jax.jit
    def count(*args):
        return rasterize_fn(*args, **size, max_isects=1).num_isects[0]

    view = (scene["viewmat"][None], scene["K"][None])
    return int(count(*(scene[name] for name in LEAVES), *view))
