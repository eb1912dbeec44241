"""The Pallas kernels, interpreted, against their twins; and compiled without hardware.

In float64 no mistake can hide behind a tolerance: kernels and twins differ by the order
of sums only.
"""

import importlib.util
import itertools
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.rasterizer import compositing, pallas, tiles
from npga_jax.rasterizer.rendering import (
    Blocking,
    rasterization,
    rasterization_pallas,
    rasterization_pure,
)

from ..gpu_lowering import lowered_text
from .scenes import (
    LEAVES,
    Case,
    cameras,
    cloud,
    quick_jit,
    render,
    render_and_grad,
    wall,
    without,
)

REPO = Path(__file__).resolve().parents[2]

# Small chunks, so that lists of these small scenes have several.
DRIVERS = {
    "tpu": pallas.TPU._replace(chunk=8),
    "triton": pallas.TRITON._replace(chunk=8),
}
drivers = pytest.mark.parametrize("driver", DRIVERS.values(), ids=DRIVERS.keys())

# The image is not a multiple of the tile. Interpreting unused chunks takes time, too.
CASE = Case(render_depth=False, max_isects=1280)


def _in_float64(case, scene, reference=False):
    view = cameras(case.num_cameras, case.width, case.height)
    with jax.enable_x64(True):
        scene, view = jax.tree.map(np.float64, (scene, view))
        return render_and_grad(case, scene, view, reference=reference)


def _assert_equal(actual, expected, tolerance):
    """Images to `tolerance`, gradients to that fraction of the largest element."""
    (out, grads), (expected_out, expected_grads) = actual, expected
    np.testing.assert_allclose(out.colors, expected_out.colors, atol=tolerance)
    np.testing.assert_allclose(out.alphas, expected_out.alphas, atol=tolerance)
    for name in LEAVES:
        scale = np.abs(expected_grads[name]).max() or 1.0
        np.testing.assert_allclose(
            grads[name] / scale, expected_grads[name] / scale, atol=tolerance
        )


scenes = pytest.mark.parametrize("scene", [cloud(), wall()], ids=["mixed", "opaque"])


@drivers
@scenes
def test_kernels_equal_both_twins_in_float64(scene, driver):
    result = _in_float64(CASE._replace(driver=driver), scene)
    pure = _in_float64(CASE._replace(pure=True), scene)
    assert result[0].colors.dtype == np.float64
    assert np.ptp(pure[0].colors) > 0.1
    assert result[0].num_isects == pure[0].num_isects
    assert result[0].num_dropped == 0
    _assert_equal(result, pure, 1e-10)
    _assert_equal(result, _in_float64(CASE, scene, reference=True), 1e-10)


@drivers
@scenes
def test_kernels_equal_the_pure_path_in_float32(scene, driver):
    # 1e-5 is what float32 leaves of gradients behind opaque layers, on both paths.
    result = render_and_grad(CASE._replace(driver=driver), scene)
    _assert_equal(result, render_and_grad(CASE._replace(pure=True), scene), 2e-5)


@drivers
def test_features_and_depth_are_channels(driver):
    width, height = 35, 20
    view = cameras(2, width, height)
    rng = np.random.default_rng(2)
    params = {**cloud(), "features": np.float32(rng.normal(size=(64, 16)))}

    def loss(fn, params):
        out = fn(
            *(params[k] for k in LEAVES),
            *view,
            width=width,
            height=height,
            max_isects=1024,
            features=params["features"],
            render_depth=True,
            antialiased=True,
            blocking=Blocking(16, chunk=4, group=4),
        )
        return sum(jnp.sum(x**2) for x in out[:4]), out

    def run(fn):
        return quick_jit(jax.grad(partial(loss, fn), has_aux=True))(params)

    grads, out = run(partial(rasterization_pallas, drivers=driver, interpret=True))
    expected_grads, expected = run(rasterization_pure)
    assert np.abs(expected_grads["features"]).max() > 0.1
    assert np.all(expected.num_dropped == 0)
    for x, y in zip(*map(jax.tree.leaves, (out, expected)), strict=True):
        np.testing.assert_allclose(x, y, atol=2e-5)
    for name, y in expected_grads.items():
        scale = np.abs(y).max()
        np.testing.assert_allclose(grads[name] / scale, y / scale, atol=2e-5)


@drivers
def test_nothing_visible_leaves_exactly_the_background(driver):
    case = CASE._replace(driver=driver)
    out, grads = render_and_grad(case, without(cloud(), slice(None)))
    assert np.all(out.colors == np.float32(np.linspace(0.2, 0.9, 3)))
    assert np.all(out.alphas == 0)
    assert out.num_isects == out.num_dropped == 0
    assert all(np.all(g == 0) for g in grads.values())


@drivers
def test_one_gaussian_covers_the_image_and_is_clamped(driver):
    scene = without(cloud(), slice(None))
    scene["means"][9], scene["scales"][9], scene["opacities"][9] = [0, 0, 3], 1e4, 1.0
    out, grads = render_and_grad(CASE._replace(driver=driver), scene)
    np.testing.assert_allclose(out.alphas, 0.999, atol=1e-6)
    assert np.all(grads["colors"][9] != 0)
    for name in ("means", "quats", "scales", "opacities"):
        assert np.all(grads[name] == 0), name


@drivers
def test_a_tile_without_gaussians_stays_empty_between_others(driver):
    scene = without(cloud(), slice(None))
    for row, x in ((9, -1.1), (10, 1.1)):
        scene["means"][row], scene["scales"][row] = [x, 0, 3], 0.05
        scene["opacities"][row] = 0.8
    out, _ = render_and_grad(CASE._replace(driver=driver), scene)
    expected, _ = render_and_grad(CASE._replace(pure=True), scene)
    assert 0 < np.mean(expected.alphas > 0) < 0.2
    np.testing.assert_allclose(out.alphas, expected.alphas, atol=1e-6)
    np.testing.assert_array_equal(out.alphas == 0, expected.alphas == 0)


@drivers
def test_overflow_drops_the_same_pairs(driver):
    case, scene = CASE._replace(max_isects=73), cloud()
    out = render(case._replace(driver=driver), scene)
    expected = render(case._replace(pure=True), scene)
    assert out.num_isects == expected.num_isects
    assert out.num_dropped == out.num_isects - 73 > 0
    np.testing.assert_allclose(out.colors, expected.colors, atol=1e-5)
    np.testing.assert_allclose(out.alphas, expected.alphas, atol=1e-5)


@drivers
def test_unusable_gaussians_are_as_if_absent(driver):
    scene = cloud()
    spoiled = {name: values.copy() for name, values in scene.items()}
    rows = range(len(LEAVES))
    for row, leaf in zip(rows, LEAVES, strict=True):
        spoiled[leaf][row] = (np.nan, np.inf)[row % 2]
    case = CASE._replace(driver=driver)
    out, grads = render_and_grad(case, spoiled)
    expected, expected_grads = render_and_grad(
        case, without(scene, slice(0, len(rows)))
    )
    assert out.num_invalid == len(rows)
    np.testing.assert_array_equal(out.colors, expected.colors)
    for name in LEAVES:
        assert np.all(grads[name][: len(rows)] == 0), name
        np.testing.assert_array_equal(grads[name], expected_grads[name])


def one_tile(opacities, colors):
    """Inputs of `rasterize_to_pixels`: layers that cover a tile, front to back."""
    n = len(opacities)
    lists = tiles.TileLists(
        jnp.arange(n), jnp.array([0, n]), jnp.int32(n), jnp.int32(0)
    )
    means2d, conics = np.full((n, 2), 4.0), np.zeros((n, 3))
    return *map(np.float32, (means2d, conics, opacities, colors)), lists


def _blend(fn, *inputs):
    return fn(*inputs, width=8, height=8, blocking=Blocking(8, chunk=4, group=1))


@drivers
def test_chunks_behind_a_finished_tile_are_not_looked_at(driver):
    colors = np.random.default_rng(3).uniform(size=(40, 3))
    # A matrix product would carry them into the image, even with a weight of zero.
    colors[8:] = np.nan
    *arrays, lists = one_tile(np.full(40, 0.97), colors)
    fn = partial(pallas.rasterize_to_pixels, drivers=driver, interpret=True)

    @quick_jit
    def run(*arrays):
        (image, light), vjp = jax.vjp(lambda *a: _blend(fn, *a, lists), *arrays)
        return image, light, vjp((jnp.ones_like(image), jnp.ones_like(light)))

    image, light, grads = run(*arrays)
    # 0.03 ** 2 is above the threshold of 1e-4, 0.03 ** 3 below.
    np.testing.assert_allclose(light, 0.03**2, atol=1e-6)
    expected = 0.97 * (colors[0] + 0.03 * colors[1])
    np.testing.assert_allclose(image, np.tile(expected, (8, 8, 1)), atol=1e-6)
    for grad in grads:
        assert np.all(np.isfinite(grad))
        assert np.all(grad[8:] == 0)
    assert np.all(grads[3][:2] > 0)
    assert np.all(grads[3][2:] == 0)


def test_chunks_hold_each_list_once_in_order():
    counts = np.array([0, 5, 4, 0, 0, 9, 0])
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    flat = np.random.default_rng(0).permutation(30)[:20].astype(np.int32)
    lists = tiles.TileLists(flat, offsets, np.int32(18), np.int32(0))
    chunks = jax.tree.map(np.asarray, pallas.layout.make_chunks(lists, 30, chunk=4))
    ids = chunks.ids.reshape(-1, 4)
    used = chunks.starts[-1]
    assert used == 1 + 2 + 1 + 1 + 1 + 3 + 1
    assert len(ids) == 20 // 4 + len(counts) >= used
    for tile, (a, b) in enumerate(itertools.pairwise(offsets)):
        first, end = chunks.starts[tile : tile + 2]
        assert np.all(chunks.tiles[first:end] == tile)
        padded = ids[first:end].ravel()
        np.testing.assert_array_equal(padded[: b - a], flat[a:b])
        assert np.all(padded[b - a :] == 30)
        np.testing.assert_array_equal(chunks.filled[first:end], int(b > a))
    assert np.all(ids[used:] == 30)
    assert not np.any(chunks.filled[used:])


def test_chunks_suffice_for_the_worst_lists():
    # Tiles with one Gaussian more than a chunk holds waste the most.
    num_tiles, chunk = 3, 4
    counts = np.full(num_tiles, chunk + 1)
    needed = np.sum(-(-counts // chunk))
    assert pallas.layout.num_chunks(counts.sum(), num_tiles, chunk) == needed


def test_tiles_that_kernels_cannot_take_are_refused():
    *arrays, lists = one_tile([0.5], [[1.0, 1.0, 1.0]])
    with pytest.raises(ValueError, match=r"tile_size is 12; .* power of two"):
        pallas.rasterize_to_pixels(
            *arrays, lists, width=12, height=12, blocking=Blocking(tile_size=12)
        )


def blend_gradient(fn, *inputs):
    def loss(arrays, lists):
        image, light = _blend(fn, *arrays, lists)
        return jnp.sum(image**2) + jnp.sum(light**2)

    *arrays, lists = inputs
    return jax.value_and_grad(loss)(tuple(arrays), lists)


def test_without_a_driver_for_the_platform_the_pure_path_answers():
    inputs = one_tile(np.linspace(0.1, 0.9, 20), np.ones((20, 3)))
    compiled = quick_jit(partial(blend_gradient, pallas.rasterize_to_pixels))
    actual = compiled(*inputs)
    pure = quick_jit(partial(blend_gradient, compositing.rasterize_to_pixels))
    expected = pure(*inputs)
    for x, y in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


_KERNELS = {"tpu": "tpu_custom_call", "cuda": "__gpu$xla.gpu.triton"}


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("channels", [3, 35])
def test_forward_and_backward_lower_for(platform, channels):
    inputs = one_tile(np.linspace(0.1, 0.9, 20), np.ones((20, channels)))
    step = jax.jit(partial(blend_gradient, pallas.rasterize_to_pixels))
    text = lowered_text(step, *inputs, platform=platform)
    assert text.count(f"custom_call @{_KERNELS[platform]}(") == 2


def _pretend(monkeypatch, backend, *capabilities):
    """As if this process had such GPUs, as far as the rasterizer looks."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(pallas, "compute_capabilities", lambda: list(capabilities))


def _lowered_gradient(fn, platform):
    scene = cloud()

    def loss(*leaves):
        view = cameras(1, 32, 24)
        return jnp.sum(fn(*leaves, *view, width=32, height=24, max_isects=1024).colors)

    step = jax.jit(jax.grad(loss, argnums=(0, 4)))
    return lowered_text(step, *(scene[k] for k in LEAVES), platform=platform)


def test_a_gpu_gets_the_kernels_unless_they_are_turned_off(monkeypatch):
    _pretend(monkeypatch, "gpu", 9.0)
    text = _lowered_gradient(rasterization, "cuda")
    assert text.count(f"custom_call @{_KERNELS['cuda']}(") == 2
    monkeypatch.setenv("NPGA_NATIVE", "0")
    assert _KERNELS["cuda"] not in _lowered_gradient(rasterization, "cuda")


@pytest.mark.parametrize("platform", ["tpu", "rocm"])
def test_without_kernels_the_gradient_costs_what_the_pure_path_costs(
    monkeypatch, platform
):
    _pretend(monkeypatch, platform)
    text = _lowered_gradient(rasterization, platform)
    assert not any(kernel in text for kernel in _KERNELS.values())
    pure = _lowered_gradient(rasterization_pure, platform)
    assert text.count("stablehlo.while") == pure.count("stablehlo.while") > 0


@pytest.mark.parametrize(
    ("capabilities", "usable"),
    [
        ((None,), False),
        (("7.5",), False),
        (("8.0",), True),
        (("10.0", "9.0"), True),
        (("9.0", "7.5"), False),
        (("gfx90a",), False),
    ],
)
def test_gpus_too_old_for_triton_get_the_pure_path(monkeypatch, capabilities, usable):
    devices = [SimpleNamespace(compute_capability=c) for c in capabilities]
    monkeypatch.setattr(jax, "local_devices", lambda: [*devices, object()])
    assert (pallas.why_not(8) == "") == usable
    assert "tiles of 12" in pallas.why_not(12) or not usable


def test_an_interpreter_wants_one_driver():
    *arrays, lists = one_tile([0.5], [[1.0, 1.0, 1.0]])
    size = {"width": 8, "height": 8, "blocking": Blocking(8)}
    for drivers, message in (
        (pallas.DRIVERS, "one driver"),
        (None, "no Pallas for Triton; install"),
    ):
        with pytest.raises(ValueError, match=message):
            pallas.rasterize_to_pixels(
                *arrays, lists, **size, drivers=drivers, interpret=True
            )


_WITHOUT_TRITON = """
import sys
sys.modules["jax.experimental.pallas.triton"] = None
import numpy as np
from npga_jax.rasterizer import pallas, rasterization
from tests.rasterizer.scenes import LEAVES, cameras, cloud
assert pallas.TRITON is None and not pallas.PROVEN and set(pallas.DRIVERS) == {"tpu"}
scene = cloud()
leaves = [scene[k] for k in LEAVES]
size = {"width": 16, "height": 16, "max_isects": 512}
out = rasterization(*leaves, *cameras(1, 16, 16), **size)
print(float(np.ptp(out.colors)) > 0.1)
"""


def test_a_jax_without_pallas_for_triton_still_renders():
    result = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TRITON],
        cwd=REPO,
        env={**os.environ, "NPGA_NATIVE": "0"},
        capture_output=True,
        text=True,
    )
    assert result.stdout.strip() == "True", result.stderr


_COMPILE = """
import sys
import jax
from jax.experimental import topologies
from tests.rasterizer.test_pallas import blend_gradient, one_tile
from npga_jax.rasterizer import pallas

device = topologies.get_topology_desc(platform="tpu", topology_name=sys.argv[1])
sharding = jax.sharding.SingleDeviceSharding(device.devices[0])
shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    one_tile([0.5] * 20, [[1.0] * int(sys.argv[2])] * 20),
)
step = jax.jit(lambda *inputs: blend_gradient(pallas.rasterize_to_pixels, *inputs))
print(step.trace(*shapes).lower().compile().as_text().count('"tpu_custom_call"'))
"""


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="TPUs are compiled for by libtpu, which is not installed",
)
@pytest.mark.parametrize(
    ("topology", "channels"), [("v5e:2x2", 3), ("v5e:2x2", 35), ("v6e:2x2", 3)]
)
def test_forward_and_backward_compile_for_tpus_that_are_not_there(topology, channels):
    # In a process of its own: libtpu looks for hardware, and may be in use.
    result = subprocess.run(
        [sys.executable, "-c", _COMPILE, topology, str(channels)],
        cwd=REPO,
        env={
            **os.environ,
            "TPU_SKIP_MDS_QUERY": "1",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "2"
