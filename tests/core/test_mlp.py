import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.core.mlp import apply_mlp, init_mlp, map_rows, positional_encoding


def test_encoding_is_x_then_sines_and_cosines_of_each_octave():
    x = np.array([0.3, -0.7])
    expected = [0.3, -0.7]
    for octave in range(3):
        for wave in (np.sin, np.cos):
            expected += [wave(np.pi * 2**octave * value) for value in x]
    # An octave's sine and cosine lie apart: all sines come first.
    order = [0, 1, 2, 3, 6, 7, 10, 11, 4, 5, 8, 9, 12, 13]
    np.testing.assert_allclose(
        positional_encoding(jnp.asarray(x), 3), np.array(expected)[order], atol=1e-5
    )


def test_no_octaves_leave_x_alone():
    x = jnp.ones((2, 3))
    assert positional_encoding(x, 0) is x
    assert positional_encoding(x, 4).shape == (2, 27)


def test_mlp_is_layers_with_a_relu_after_each():
    params = init_mlp(jax.random.key(0), [3, 5, 2])
    assert [p["w"].shape for p in params["layers"]] == [(3, 5), (5, 2)]
    params["layers"][1]["b"] = jnp.array([0.5, -100.0])
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    expected = x
    for layer in jax.tree.map(np.asarray, params["layers"]):
        expected = np.maximum(expected @ layer["w"] + layer["b"], 0)
    out = apply_mlp(params, x)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    np.testing.assert_array_equal(out[:, 1], 0)


def test_weights_keep_the_size_of_what_passes():
    params = init_mlp(jax.random.key(1), [200, 200, 200, 200])
    x = jax.random.normal(jax.random.key(2), (300, 200))
    ratio = jnp.mean(apply_mlp(params, x) ** 2) / jnp.mean(x**2)
    assert 0.5 < ratio < 2.0


@pytest.mark.parametrize("count", [7, 8, 20, 21])
def test_blocks_of_rows_are_all_rows(count):
    """Values and gradients, with and without rows left over."""
    params = init_mlp(jax.random.key(0), [3, 16, 8])
    x = jax.random.normal(jax.random.key(1), (count, 3))
    shift = jax.random.normal(jax.random.key(2), (count, 8))

    def rowwise(params, x, shift):
        hidden = apply_mlp(params, x) + shift
        return {"hidden": hidden, "size": jnp.sum(hidden**2, axis=-1)}

    def blocked(params, x, shift):
        return map_rows(lambda *rows: rowwise(params, *rows), (x, shift), rows=8)

    def total(fn, *inputs):
        out = fn(*inputs)
        return jnp.sum(jnp.sin(out["hidden"])) + jnp.sum(jnp.cos(out["size"]))

    inputs = (params, x, shift)
    expected, got = jax.jit(rowwise)(*inputs), jax.jit(blocked)(*inputs)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), expected, got
    )
    slopes = [
        jax.jit(jax.grad(lambda *a, fn=fn: total(fn, *a), argnums=(0, 1, 2)))(*inputs)
        for fn in (rowwise, blocked)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), *slopes)


def test_rows_are_only_cut_for_a_cpu():
    """Other devices are given all rows in one piece."""
    params = init_mlp(jax.random.key(0), [3, 16])

    def fn(x):
        return map_rows(lambda rows: apply_mlp(params, rows), (x,), rows=8)

    x = jax.ShapeDtypeStruct((32, 3), jnp.float32)
    loops = {
        platform: "while"
        in jax.export.export(jax.jit(fn), platforms=[platform])(x).mlir_module()
        for platform in ("cpu", "cuda", "tpu")
    }
    assert loops == {"cpu": True, "cuda": False, "tpu": False}
