"""The native core against the pure path: equal values, gradients and counts."""

import functools
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.core.memory import is_lack_of_memory
from npga_jax.rasterizer import native
from npga_jax.rasterizer.compositing import Blocking
from npga_jax.rasterizer.native import ffi
from npga_jax.rasterizer.projection import Projection

from .scenes import (
    LEAVES,
    Case,
    cameras,
    cloud,
    loss_fn,
    quick_jit,
    render_and_grad,
    wall,
    without,
)

REPO = Path(__file__).resolve().parents[2]

try:
    import numba
except ImportError:
    numba = None

needs_numba = pytest.mark.skipif(numba is None, reason="numba is not installed")


def _large():
    return cloud(n=3000, seed=4)


def _spoiled():
    scene = cloud()
    scene["means"][10], scene["quats"][11], scene["scales"][12] = np.nan, np.inf, 1e20
    scene["scales"][13], scene["opacities"][14] = 1e4, 1.0
    return scene


def assert_equal_to_pure(case, scene, tolerance=1e-5):
    """Counts are equal; images and gradients to a fraction of their largest value."""
    out, grads = render_and_grad(case, scene)
    expected, expected_grads = render_and_grad(case._replace(pure=True), scene)
    for name in ("num_isects", "num_dropped", "num_invalid"):
        np.testing.assert_array_equal(getattr(out, name), getattr(expected, name))
    for x, y in ((out.colors, expected.colors), (out.alphas, expected.alphas)):
        np.testing.assert_allclose(x, y, atol=tolerance)
    for name in LEAVES:
        scale = np.abs(expected_grads[name]).max() or 1.0
        np.testing.assert_allclose(
            grads[name] / scale, expected_grads[name] / scale, atol=tolerance
        )
    return out


@needs_numba
def test_the_native_core_is_used():
    assert ffi.unavailable() == ""
    lowered = jax.jit(loss_fn(Case())).lower(cloud(), *cameras(1, 45, 37))
    assert ffi.TARGET in lowered.as_text()
    # The other branch of the choice is not compiled.
    assert "while" not in lowered.as_text()


@needs_numba
@pytest.mark.parametrize(
    ("case", "scene", "tolerance"),
    [
        pytest.param(Case(), cloud, 1e-5, id="depth"),
        pytest.param(Case(), wall, 1e-5, id="opaque"),
        pytest.param(Case(), _spoiled, 2e-4, id="nan-and-huge"),
        pytest.param(Case(max_isects=60_000), _large, 2e-5, id="many"),
        pytest.param(
            Case(33, 21, tile_size=4, render_depth=False),
            functools.partial(cloud, channels=33),
            2e-5,
            id="tile4-33-channels",
        ),
        pytest.param(
            Case(1, 1, tile_size=16, render_depth=False),
            functools.partial(cloud, channels=5),
            2e-3,
            id="one-pixel-five-channels",
        ),
        pytest.param(
            Case(num_cameras=3, render_depth=False, antialiased=True),
            functools.partial(cloud, sh_bases=4),
            1e-5,
            id="three-cameras-sh",
        ),
    ],
)
def test_native_equals_pure(case, scene, tolerance):
    # Gradients of a Gaussian that covers all pixels are 5e-5 off those of float64 on
    # both paths; with one pixel those of the pure path 8e-4, of the native one 2e-5.
    out = assert_equal_to_pure(case, scene(), tolerance)
    assert np.all(out.num_isects > 0)
    assert np.all(out.num_dropped == 0)


@needs_numba
@pytest.mark.parametrize("max_isects", [1, 7, 70, 73, 120, 300])
def test_overflow_drops_the_same_pairs(max_isects):
    # Depths of hardly covered pixels are quotients of small numbers.
    case = Case(max_isects=max_isects, render_depth=False)
    out = assert_equal_to_pure(case, cloud())
    assert out.num_dropped == out.num_isects - max_isects > 0


@needs_numba
def test_nothing_visible():
    out = assert_equal_to_pure(Case(), without(cloud(), slice(None)))
    assert out.num_isects == 0


@needs_numba
def test_every_run_gives_the_same_bits():
    case, scene = Case(200, 150, render_depth=False, max_isects=200_000), _large()
    first = render_and_grad(case, scene)
    for _ in range(5):
        again = render_and_grad(case, scene)
        jax.tree.map(np.testing.assert_array_equal, again, first)


@needs_numba
def test_concurrent_calls_give_the_same_bits():
    case, scene = Case(200, 150, render_depth=False, max_isects=200_000), _large()
    first = render_and_grad(case, scene)
    results = []

    def run():
        results.extend(render_and_grad(case, scene) for _ in range(4))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert len(results) == 16
    for result in results:
        jax.tree.map(np.testing.assert_array_equal, result, first)


@needs_numba
def test_scenes_may_be_mapped_over():
    case, scene = Case(render_depth=False), cloud()
    loss = loss_fn(case)
    view = cameras(1, case.width, case.height)
    factors = jnp.array([1.0, 0.7])

    def brightened(factor):
        return loss({**scene, "colors": scene["colors"] * factor}, *view)[0]

    mapped = jax.jit(jax.vmap(jax.value_and_grad(brightened)))(factors)
    looped = jax.jit(lambda f: jax.lax.map(jax.value_and_grad(brightened), f))(factors)
    for x, y in zip(mapped, looped, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


@needs_numba
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_get_the_pure_path(platform):
    grad = jax.jit(jax.grad(loss_fn(Case()), has_aux=True))
    traced = grad.trace(cloud(), *cameras(1, 45, 37))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ffi.TARGET not in text


@needs_numba
def test_an_unknown_version_of_the_ffi_is_refused():
    assert ffi._speaks((0, 3))
    assert not ffi._speaks((0, 999))
    assert not ffi._speaks((1, 0))


def test_double_precision_is_left_to_the_pure_path():
    with jax.enable_x64(True):
        scene = {k: jnp.asarray(v, jnp.float64) for k, v in cloud().items()}
        view = [jnp.asarray(x, jnp.float64) for x in cameras(1, 45, 37)]
        lowered = jax.jit(loss_fn(Case())).lower(scene, *view)
    assert ffi.TARGET not in lowered.as_text()


_SCRIPT = """
import sys
{prelude}
import jax
import numpy as np
from npga_jax.core import runtime
from npga_jax.rasterizer import renderer_path
from tests.rasterizer.scenes import Case, cameras, cloud, loss_fn, quick_jit

{devices}
view = cameras(1, 45, 37)
grad = quick_jit(jax.grad(loss_fn(Case()), has_aux=True))
{mapped}
grads, out = grad(cloud(), *view)
print(repr(renderer_path().reason), file=sys.stderr)
np.savez(sys.argv[1], image=out.colors, **grads)
"""

_SHARD_MAP = """
mesh = jax.sharding.Mesh(np.array(jax.devices()), ("d",))
P = jax.sharding.PartitionSpec
single = jax.grad(loss_fn(Case()), has_aux=True)
def both(scene, viewmats, Ks):
    grads, out = single(scene, viewmats, Ks)
    return jax.lax.pmean(grads, "d"), out
sharded = jax.shard_map(
    both, mesh=mesh, in_specs=(P(), P("d"), P("d")),
    out_specs=(P(), P("d")), check_vma=False,
)
view = [np.concatenate([x, x]) for x in view]
sharded = quick_jit(sharded)
for _ in range(20):
    grads, out = jax.block_until_ready(sharded(cloud(), *view))
np.testing.assert_array_equal(out.colors[0], out.colors[1])
grad = lambda *args: (grads, jax.tree.map(lambda x: x[:1], out))
"""


def _run_script(folder, **parts):
    parts = {"prelude": "", "devices": "", "mapped": ""} | parts
    output = folder / "out.npz"
    result = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(**parts), str(output)],
        capture_output=True,
        text=True,
        cwd=REPO,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    case = Case()
    out, grads = render_and_grad(case._replace(pure=True), cloud())
    actual = np.load(output)
    np.testing.assert_allclose(actual["image"], out.colors, atol=1e-5)
    for name in LEAVES:
        scale = np.abs(grads[name]).max()
        np.testing.assert_allclose(actual[name] / scale, grads[name] / scale, atol=1e-5)
    return result.stderr


def test_without_numba_the_pure_path_answers(tmp_path):
    message = _run_script(tmp_path, prelude="sys.modules['numba'] = None")
    assert "numba cannot be imported" in message


def test_an_environment_variable_turns_it_off(tmp_path):
    prelude = "import os; os.environ['NPGA_NATIVE'] = '0'"
    assert "NPGA_NATIVE is 0" in _run_script(tmp_path, prelude=prelude)


@needs_numba
@pytest.mark.parametrize(
    "devices",
    [
        "runtime.configure(num_cpu_devices=2)",
        "jax.config.update('jax_num_cpu_devices', 2)",
    ],
    ids=["one-thread-each", "shared-threads"],
)
def test_devices_render_at_the_same_time(tmp_path, devices):
    message = _run_script(tmp_path, devices=devices, mapped=_SHARD_MAP)
    assert message.strip().endswith("''")


def _projected(n=40):
    """What the compositing of a small image starts from: most pixels are covered."""
    rng = np.random.default_rng(0)
    columns = {
        "means2d": rng.uniform(0, 16, (n, 2)),
        "conics": np.tile([0.1, 0.0, 0.1], (n, 1)),
        "depths": rng.uniform(1, 2, n),
        "radii": np.full((n, 2), 8.0),
        "opacities": rng.uniform(0.2, 0.9, n),
    }
    columns = {name: jnp.float32(column) for name, column in columns.items()}
    return Projection(**columns, invalid=jnp.zeros(n, bool)), jnp.ones((n, 3))


@needs_numba
@pytest.mark.parametrize("is_backward", [False, True])
def test_memory_that_runs_out_is_an_error_wherever_it_does(monkeypatch, is_backward):
    """The first allocation of a call fails, then the second, and so on."""
    size = {"width": 16, "height": 16, "max_isects": 100, "blocking": Blocking(8)}

    def nothing(*args, **size):
        zero = jnp.int32(0)
        return jnp.zeros((16, 16, 3)), jnp.zeros((16, 16)), (zero, zero)

    def image(projected, colors):
        return native.composite_native(projected, colors, pure_fn=nothing, **size)[0]

    def forward(projected, colors):
        return image(projected, colors), None

    def backward(projected, colors):
        # Allocations of the forward pass, which has room, are not counted here.
        monkeypatch.setattr(native, "allocations", native._NO_LIMIT)
        result, vjp = jax.vjp(image, projected, colors)
        monkeypatch.setattr(native, "allocations", np.int64(allowed))
        return result, vjp(jnp.ones_like(result))[1]

    def run():
        # A function that JAX has not seen: it would not ask again how much is allowed.
        fn = backward if is_backward else forward
        return jax.block_until_ready(quick_jit(lambda *x: fn(*x))(*_projected()))

    assert not ffi.unavailable()
    for allowed in range(50):
        monkeypatch.setattr(native, "allocations", np.int64(allowed))
        try:
            result = run()
            break
        except jax.errors.JaxRuntimeError as error:
            assert is_lack_of_memory(error)
            assert "no memory left for the rasterizer" in str(error)
    # Forward: parameters, records, keys, the jobs of three loops, and the tile's state;
    # backward: rows, the tile's state and sums of chunks.
    assert allowed >= 7
    # What has failed leaves nothing behind that would spoil the next call.
    monkeypatch.undo()
    expected = run()
    jax.tree.map(np.testing.assert_array_equal, result, expected)
    assert all(np.any(x != 0) for x in jax.tree.leaves(expected))
