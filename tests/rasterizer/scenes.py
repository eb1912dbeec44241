"""Scenes, cameras and jitted renderers that the tests of the rasterizer share."""

import functools
import os
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.rasterizer import pallas
from npga_jax.rasterizer.rendering import (
    Blocking,
    rasterization,
    rasterization_pallas,
    rasterization_pure,
    rasterization_reference,
)

LEAVES = ("means", "quats", "scales", "opacities", "colors")
WIDTH, HEIGHT = 45, 37


class Case(NamedTuple):
    """Static choices: one compilation each."""

    width: int = WIDTH
    height: int = HEIGHT
    tile_size: int = 8
    num_cameras: int = 1
    render_depth: bool = True
    antialiased: bool = False
    max_isects: int = 8192
    pure: bool = False
    driver: pallas.Driver | None = None  # Pallas kernels, interpreted


def cloud(n=64, seed=0, channels=3, sh_bases=None):
    """A mixed cloud some 3 before the camera: opaque and faint, thick and thin."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(n, 3)) * [0.8, 0.7, 0.5] + [0.0, 0.0, 3.0]
    scales = np.exp(rng.normal(-2.5, 0.8, size=(n, 3)))
    opacities = rng.uniform(0.02, 1.0, size=n)
    means[0] = [0, 0, -2]  # Behind.
    means[1] = [90, 0, 3]  # Beside the view.
    means[2] = [0, 0, 0.005]  # Before the near plane.
    opacities[3] = 0.003  # Below the threshold.
    opacities[4] = 1.0  # Clamped.
    scales[5] = [1.5, 1e-3, 1e-3]  # A needle.
    means[6], scales[6], opacities[6] = [0, 0, 4.5], 20.0, 0.4  # Everywhere.
    means[7] = [2.2, 0.3, 1.0]  # Its centre is out of view, its rim is not.
    scales[7] = 0.4
    size = (n, channels) if sh_bases is None else (n, sh_bases, 3)
    colors = rng.uniform(size=size) if sh_bases is None else rng.normal(0, 0.4, size)
    values = (means, rng.normal(size=(n, 4)), scales, opacities, colors)
    return {k: np.float32(v) for k, v in zip(LEAVES, values, strict=True)}


def wall(n=64, seed=1):
    """Opaque layers behind each other: most pixels end early."""
    scene = cloud(n, seed)
    scene["means"] = scene["means"] * np.float32([0.5, 0.5, 1.0])
    scene["scales"] = np.maximum(scene["scales"], 0.3)
    scene["opacities"] = np.full_like(scene["opacities"], 0.97)
    return scene


def cameras(num, width, height):
    """Rotated world-to-camera matrices, and a principal point off the centre."""
    viewmats = np.tile(np.eye(4), (num, 1, 1))
    for i in range(num):
        angle = 0.1 + 0.2 * i
        c, s = np.cos(angle), np.sin(angle)
        rotation = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        viewmats[i, :3, :3] = rotation
        center = np.array([0.0, 0.0, 3.0])
        viewmats[i, :3, 3] = center - rotation @ center + [0.05, -0.1, 0.0]
    focal = 0.9 * width
    K = [[focal, 0, 0.4 * width], [0, 1.1 * focal, 0.55 * height], [0, 0, 1]]
    return np.float32(viewmats), np.float32([K] * num)


def _noise(shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def render_fn(case: Case, reference=False):
    """(params, viewmats, Ks) -> RenderOutput, not jitted; on a coloured background."""
    fn = rasterization_pure if case.pure else rasterization
    if case.driver is not None:
        fn = partial(rasterization_pallas, drivers=case.driver, interpret=True)
    if reference:
        fn = rasterization_reference

    def render(params, viewmats, Ks):
        num_channels = 3 if params["colors"].ndim == 3 else params["colors"].shape[1]
        backgrounds = np.linspace(0.2, 0.9, case.num_cameras * num_channels)
        return fn(
            *(params[k] for k in LEAVES),
            viewmats,
            Ks,
            width=case.width,
            height=case.height,
            max_isects=case.max_isects,
            backgrounds=jnp.asarray(
                backgrounds.reshape(-1, num_channels), params["colors"].dtype
            ),
            render_depth=case.render_depth,
            antialiased=case.antialiased,
            blocking=Blocking(case.tile_size, chunk=4, group=8),
        )

    return render


def loss_fn(case: Case, reference=False):
    """A random linear functional of all outputs, and the outputs themselves."""
    render = render_fn(case, reference)

    def loss(params, viewmats, Ks):
        out = render(params, viewmats, Ks)
        images = [x for x in (out.colors, out.alphas, out.depths) if x is not None]
        total = sum(jnp.sum(x * _noise(x.shape, i)) for i, x in enumerate(images))
        return total / (case.width * case.height), out

    return loss


def quick_jit(fn):
    """`jax.jit` for functions that are compiled more slowly than they run."""
    return jax.jit(fn, compiler_options={"xla_backend_optimization_level": 0})


def users_jit(fn):
    """`jax.jit` with the emitters that users have; see tests/conftest.py."""
    newest = "--xla_cpu_use_fusion_emitters=false" not in os.environ.get(
        "XLA_FLAGS", ""
    )
    options = None if newest else {"xla_cpu_use_fusion_emitters": True}
    return jax.jit(fn, compiler_options=options)


@functools.cache
def _jitted(case, reference):
    jit = users_jit if case == Case() and not reference else quick_jit
    return jit(jax.grad(loss_fn(case, reference), has_aux=True))


@functools.cache
def _jitted_render(case):
    return quick_jit(render_fn(case))


def render(case, params, view=None):
    """RenderOutput as numpy, without compiling the gradient; jitted once per case."""
    view = cameras(case.num_cameras, case.width, case.height) if view is None else view
    return jax.tree.map(np.asarray, _jitted_render(case)(params, *view))


def render_and_grad(case, params, view=None, *, reference=False):
    """RenderOutput and the gradients of `loss_fn`, as numpy; jitted once per case."""
    view = cameras(case.num_cameras, case.width, case.height) if view is None else view
    grads, out = _jitted(case, reference)(params, *view)
    return jax.tree.map(np.array, (out, grads))


def without(params, rows):
    """The same scene with some rows made invisible."""
    opacities = params["opacities"].copy()
    opacities[rows] = 0.0
    return {**params, "opacities": opacities}


def assert_images_close(actual, expected, tolerance=2e-5):
    """Equal but for single pixels at a threshold, which may differ by a grey level."""
    for name in ("colors", "alphas", "depths"):
        x, y = getattr(actual, name), getattr(expected, name)
        if y is None:
            assert x is None
            continue
        error = np.abs(x - y) / max(1.0, np.abs(y).max())
        assert np.mean(error > tolerance) <= 1e-3, (name, error.max())
        assert error.max() <= 0.02, (name, error.max())


def assert_grads_close(actual, expected, tolerance=1e-5):
    """The direction agrees, and nearly every element to `tolerance` of the largest."""
    for name in LEAVES:
        x, y = (np.float64(g[name]).ravel() for g in (actual, expected))
        assert np.all(np.isfinite(x)), name
        cosine = x @ y / (np.linalg.norm(x) * np.linalg.norm(y))
        assert cosine >= 0.9999, (name, cosine)
        error = np.abs(x - y) / np.abs(y).max()
        assert np.mean(error > tolerance) <= 0.02, (name, error.max())
        assert error.max() <= 0.01, (name, error.max())
