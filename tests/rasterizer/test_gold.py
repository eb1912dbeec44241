"""The standard scene against a float64 reference that was computed elsewhere.

`gold_crop.npz` is a part of it that every clone has: 40x40 pixels of the picture of
10,000 Gaussians at 275x401 (`corner` is x, y of the first), the 466 Gaussians that
touch them, and the gradients of the 255 (`inside`) that touch no other pixel. They come
from gsplat 1.5.3's torch reference, run in float64, by all Gaussians and all pixels;
the loss is the mean over the whole picture of (image - target)^2.
"""

import importlib.util
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.rasterizer.rendering import rasterization, rasterization_pure

from .scenes import LEAVES, quick_jit

REPO = Path(__file__).resolve().parents[2]
BENCH = REPO.parent / "shared" / "bench"
GOLD = BENCH / "gold" / "gold_10000_275x401.npz"


def _load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("fn", [rasterization, rasterization_pure])
def test_a_part_of_the_standard_scene_matches_the_gold(fn):
    gold = np.load(Path(__file__).parent / "gold_crop.npz")
    (x, y), (width, height) = gold["corner"], (int(v) for v in gold["size"])

    def loss(scene):
        out = fn(
            *(scene[k] for k in LEAVES),
            gold["viewmat"][None],
            gold["K"][None],
            width=width,
            height=height,
            max_isects=16_384,
            backgrounds=gold["background"][None],
        )
        image = out.colors[0, y : y + 40, x : x + 40]
        error = jnp.sum((image - gold["target"]) ** 2) / (3 * width * height)
        return error, (image, out.num_dropped)

    grad = quick_jit(jax.grad(loss, has_aux=True))
    grads, (image, dropped) = grad({k: gold[k] for k in LEAVES})
    assert dropped == 0
    assert -10 * np.log10(np.mean((np.float64(image) - gold["image"]) ** 2)) >= 80
    for name in LEAVES:
        expected = np.float64(gold["g_" + name])
        error = np.linalg.norm(grads[name][gold["inside"]] - expected)
        assert error <= 1e-3 * np.linalg.norm(expected), name


@pytest.mark.skipif(
    not GOLD.exists(), reason=f"the whole of it is not there: {GOLD.name}"
)
def test_standard_scene_matches_the_gold(monkeypatch):
    # The adapter chooses a flag for its own process: not for ours.
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
    scene = _load(BENCH / "scene.py").make_scene(10_000, 275, 401)
    impl = _load(REPO / "dev" / "standard_scene.py").Impl(scene)
    image, grads = impl.fwdbwd()
    gold = np.load(GOLD)
    assert -10 * np.log10(np.mean((np.float64(image) - gold["img"]) ** 2)) >= 80
    for name, grad in grads.items():
        expected = np.float64(gold["g_" + name])
        error = np.linalg.norm(grad - expected) / np.linalg.norm(expected)
        assert error <= 1e-3, name
