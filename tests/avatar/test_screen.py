"""The screen-space network: where it starts, what it reads, how it learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.avatar.screen import init_screen, refine_image
from npga_jax.avatar.settings import ScreenConfig
from npga_jax.core.types import RenderOutput
from npga_jax.rasterizer.rendering import rasterization
from npga_jax.training.building import default_method
from npga_jax.training.settings import LossConfig, OptimConfig
from npga_jax.training.stages import run_optimizer
from npga_jax.training.state import init_train_state
from tests import small_scene
from tests.small_scene import HEIGHT, MAX_ISECTS, NUM_FEATURES, WIDTH


def make_output(height: int = 13, width: int = 10, seed: int = 0) -> RenderOutput:
    rng = np.random.default_rng(seed)
    count = jnp.zeros(2, jnp.int32)
    return RenderOutput(
        colors=jnp.asarray(rng.random((2, height, width, 3)), jnp.float32),
        features=jnp.asarray(rng.normal(size=(2, height, width, 4)), jnp.float32),
        alphas=jnp.asarray(rng.random((2, height, width)), jnp.float32),
        depths=None,
        num_isects=count,
        num_dropped=count,
        num_invalid=count,
    )


def with_last_layer(params):
    last = params["last"]
    w = 0.1 * jax.random.normal(jax.random.key(3), last["w"].shape)
    return {**params, "last": {**last, "w": w}}


@pytest.mark.parametrize("size", [(13, 10), (8, 8), (1, 1), (3, 2)])
def test_starts_at_the_rendering_whatever_the_size(size):
    params = init_screen(jax.random.key(0), num_features=4, width=3)
    out = make_output(*size)
    np.testing.assert_array_equal(refine_image(params, out), out.colors)
    refined = refine_image(with_last_layer(params), out)
    assert refined.shape == out.colors.shape
    assert float(jnp.abs(refined - out.colors).max()) > 0


def test_sees_features_and_alpha_within_its_reach_only():
    params = with_last_layer(init_screen(jax.random.key(0), num_features=4, width=3))
    out = make_output(40, 40)
    before = refine_image(params, out)
    for changed in (
        out._replace(features=out.features.at[:, 20, 20].add(1.0)),
        out._replace(alphas=out.alphas.at[:, 20, 20].add(1.0)),
    ):
        moved = jnp.abs(refine_image(params, changed) - before).max(axis=-1)
        assert float(moved[:, 20, 20].max()) > 0
        assert float(moved[:, :4].max()) == 0  # Sixteen pixels away and more.


def test_features_are_composited_as_colors_are():
    (params, alive), (viewmats, Ks) = (
        small_scene.make_params(),
        small_scene.make_cameras(2),
    )
    cloud = params.gaussians
    channels = jax.random.uniform(jax.random.key(1), (len(alive), 5))
    shape = (
        cloud.means,
        cloud.quats,
        jnp.exp(cloud.log_scales),
        jnp.where(alive, 0.7, 0.0),
    )
    size = {"width": WIDTH, "height": HEIGHT, "max_isects": MAX_ISECTS}
    together = rasterization(*shape, channels, viewmats, Ks, **size)
    split = rasterization(
        *shape, channels[:, :3], viewmats, Ks, features=channels[:, 3:], **size
    )
    np.testing.assert_allclose(split.colors, together.colors[..., :3], atol=1e-6)
    np.testing.assert_allclose(split.features, together.colors[..., 3:], atol=1e-6)
    assert together.features is None


def test_features_that_are_not_numbers_are_culled_and_counted():
    (params, alive), (viewmats, Ks) = (
        small_scene.make_params(),
        small_scene.make_cameras(1),
    )
    cloud = params.gaussians
    out = rasterization(
        cloud.means,
        cloud.quats,
        jnp.exp(cloud.log_scales),
        jnp.where(alive, 0.7, 0.0),
        jnp.ones((len(alive), 3)),
        viewmats,
        Ks,
        features=jnp.ones((len(alive), 2)).at[5, 1].set(jnp.nan),
        width=WIDTH,
        height=HEIGHT,
        max_isects=MAX_ISECTS,
    )
    assert int(out.num_invalid[0]) == 1
    assert bool(jnp.isfinite(out.features).all())


def test_training_refines_and_keeps_the_rendering():
    cfg = dataclasses.replace(
        small_scene.CONFIG,
        steps=60,
        screen=ScreenConfig(width=4),
        loss=LossConfig(screen=1.0),
        optim=OptimConfig(screen=5e-3),
    )
    method = default_method(cfg)
    params, alive = small_scene.make_params()
    screen = method.screen.init(jax.random.key(0), small_scene.CODES, NUM_FEATURES)
    params = params._replace(screen=screen)
    state = init_train_state(params, alive, run_optimizer(cfg, method))
    step = jax.jit(small_scene.make_step(method, cfg))
    batches = small_scene.make_batches()
    for i in range(60):
        state, metrics = step(state, batches[i % len(batches)])
    assert bool(metrics["is_finite"])
    rendered = 0.8 * metrics["l1"] + 0.2 * metrics["ssim"]
    assert float(metrics["screen"]) < float(rendered)
    moved = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()), state.params.screen, screen
    )
    assert min(jax.tree.leaves(moved)) > 0
