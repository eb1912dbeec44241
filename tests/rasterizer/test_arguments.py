"""Nothing to draw is drawn; what no program can be made for is refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.rasterizer import pallas
from npga_jax.rasterizer.compositing import Blocking
from npga_jax.rasterizer.rendering import (
    rasterization,
    rasterization_pallas,
    rasterization_pure,
    rasterization_reference,
)

from .scenes import LEAVES, cameras, cloud, quick_jit

SIZE = {"width": 20, "height": 12}


def _interpreted(*arrays, **options):
    options.setdefault("blocking", Blocking(8))
    return rasterization_pallas(
        *arrays, drivers=pallas.TRITON, interpret=True, **options
    )


WAYS = {
    "fastest": rasterization,
    "pure": rasterization_pure,
    "kernels": _interpreted,
    "reference": rasterization_reference,
}
ways = pytest.mark.parametrize("fn", WAYS.values(), ids=WAYS.keys())


@ways
@pytest.mark.parametrize("sh_bases", [None, 4])
def test_no_gaussians_give_the_background(fn, sh_bases):
    scene = {k: v[:0] for k, v in cloud(sh_bases=sh_bases).items()}
    backgrounds = np.float32([[0.1, 0.5, 0.9], [1, 0, 0]])
    features = np.zeros((0, 2), np.float32)

    def loss(scene):
        out = fn(
            *(scene[k] for k in LEAVES),
            *cameras(2, 20, 12),
            **SIZE,
            max_isects=64,
            features=features,
            backgrounds=backgrounds,
            render_depth=True,
        )
        return jnp.sum(out.colors), out

    grads, out = quick_jit(jax.grad(loss, has_aux=True))(scene)
    expected = np.broadcast_to(backgrounds[:, None, None], (2, 12, 20, 3))
    np.testing.assert_array_equal(out.colors, expected)
    assert out.features.shape == (2, 12, 20, 2)
    for image in (out.alphas, out.depths, out.features):
        assert not np.any(image)
    assert not np.any([out.num_isects, out.num_dropped, out.num_invalid])
    assert {k: v.shape for k, v in grads.items()} == {
        k: v.shape for k, v in scene.items()
    }


@ways
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_isects", 0),
        ("max_isects", -1),
        ("max_isects", 2**31),
        ("max_isects", 64.0),
        ("width", 0),
        ("height", -3),
        ("height", 12.5),
        ("blocking.tile_size", 0),
        ("blocking.chunk", 0),
        ("blocking.group", -1),
        ("near_plane", -1.0),
        ("far_plane", 0.01),
        ("eps2d", float("nan")),
    ],
)
def test_bad_static_arguments_are_named(fn, name, value):
    options = SIZE | {"max_isects": 64}
    if name.startswith("blocking."):
        options["blocking"] = Blocking()._replace(**{name[9:]: value})
    else:
        options[name] = value
    scene = cloud()
    with pytest.raises(ValueError, match=rf"^{name} is {value!r}|^{name} is {value};"):
        fn(*(scene[k] for k in LEAVES), *cameras(1, 20, 12), **options)


def test_a_traced_capacity_is_refused_by_name():
    scene = cloud()

    def render(max_isects):
        leaves = [scene[k] for k in LEAVES]
        return rasterization(
            *leaves, *cameras(1, 20, 12), **SIZE, max_isects=max_isects
        )

    with pytest.raises(ValueError, match=r"^max_isects is .* when the program is"):
        jax.jit(render)(64)


@pytest.mark.parametrize("leaf", LEAVES)
def test_whole_numbers_are_refused_by_name(leaf):
    scene = cloud()
    scene[leaf] = scene[leaf].astype(np.uint8)
    with pytest.raises(ValueError, match=f"^{leaf} are uint8; expected floating"):
        rasterization(
            *(scene[k] for k in LEAVES), *cameras(1, 20, 12), **SIZE, max_isects=64
        )


def test_an_image_without_channels_is_refused():
    scene = cloud(channels=0)
    arrays = (*(scene[k] for k in LEAVES), *cameras(1, 20, 12))
    with pytest.raises(ValueError, match=r"^colors have no channel"):
        rasterization(*arrays, **SIZE, max_isects=64)
    out = rasterization(*arrays, **SIZE, max_isects=640, render_depth=True)
    assert out.colors.shape == (1, 12, 20, 0) and np.any(out.depths)
