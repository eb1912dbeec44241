"""When the cloud changes and images grow, and what an event does to a state."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from npga_jax.training.build import (
    Stage,
    group_rates,
    loss_weights,
    make_isects_fn,
    stage_at,
    state_from_points,
)

from npga_jax.avatar.detail import init_detail
from npga_jax.avatar.networks import make_deformation
from npga_jax.avatar.settings import DetailConfig, ForwardConfig, GaussianConfig
from npga_jax.data.opening import open_capture
from npga_jax.data.settings import CaptureConfig
from npga_jax.data.splits import holdout_split
from npga_jax.training.initial_points import InitialPoints
from npga_jax.training.optim import GroupRates
from npga_jax.training.refinement import Refiner, event_at, event_steps
from npga_jax.training.settings import (
    DensityConfig,
    LossConfig,
    OptimConfig,
    TrainConfig,
)
from npga_jax.training.step import downscale_batch
from tests import small_scene

CONFIG = TrainConfig(
    steps=200,
    capture=CaptureConfig(width=32),
    gaussians=GaussianConfig(capacity=40, feature_dim=4),
    detail=DetailConfig(hidden=8, layers=2, octaves=2),
    density=DensityConfig(start=0.1, stop=0.5, events=5, views=3, growth=0.1),
    loss=LossConfig(lpips=0.1, lpips_from=0.75, laplacian_features=0.1),
    halvings=(0.2, 0.5),
)


def test_events_are_spread_between_start_and_stop():
    assert event_steps(CONFIG) == (20, 40, 60, 80, 100)
    assert event_at(CONFIG, 60) == 2 and event_at(CONFIG, 61) is None
    none = dataclasses.replace(CONFIG.density, strategy="none")
    assert event_steps(dataclasses.replace(CONFIG, density=none)) == ()


def test_short_runs_have_no_event_twice():
    steps = event_steps(dataclasses.replace(CONFIG, steps=4))
    assert len(set(steps)) == len(steps) and all(1 <= s <= 4 for s in steps)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, Stage(4, False)),
        (39, Stage(4, False)),
        (40, Stage(2, False)),
        (100, Stage(1, False)),
        (150, Stage(1, True)),
    ],
)
def test_images_grow_and_losses_join_in(step, expected):
    assert stage_at(CONFIG, step) == expected


def test_smaller_images_are_means_seen_by_scaled_cameras():
    batch = small_scene.make_batches(2)[0]
    small = downscale_batch(batch, 3)
    height, width = small_scene.HEIGHT // 3, small_scene.WIDTH // 3
    assert small.rgb.shape == (2, height, width, 3)
    corner = np.asarray(batch.rgb, np.float32)[0, :3, 3:6].mean(axis=(0, 1))
    np.testing.assert_allclose(small.rgb[0, 0, 1], corner, rtol=1e-5)
    np.testing.assert_allclose(small.Ks[:, :2], batch.Ks[:, :2] / 3, rtol=1e-6)
    np.testing.assert_array_equal(small.Ks[:, 2], batch.Ks[:, 2])
    assert downscale_batch(batch, 1) is batch


def test_event_adds_where_images_are_wrong(tiny_capture):
    capture = open_capture(
        tiny_capture.subject, tiny_capture.root, CONFIG.capture, progress=False
    )
    split = holdout_split(capture, "FREE", "222200037")
    points = small_scene.ball_points(20)
    points = InitialPoints(
        points,
        0 * points + 0.5,
        np.full(20, 0.02, np.float32),
        points[:, :0],
        0 * points[:, :2],
    )
    state = state_from_points(CONFIG, points, num_expr=3, coarse={}, code_std=1.0)
    before = jax.device_get(state)
    count = make_isects_fn(CONFIG, capture, split.train)
    refine = Refiner(CONFIG, capture, Stage(1, False), 4 * count(state))
    new, report = refine(state, split.train, 0)
    assert report.added == 4 and report.dropped == 0
    assert int(new.alive.sum()) == 24
    assert all(
        jax.tree.leaves(jax.tree.map(lambda x: np.isfinite(x).all(), new.params))
    )
    # Neighbours are found anew, and the new ones have some.
    assert np.all(np.asarray(new.graph.weights)[np.asarray(new.alive)].sum(1) > 0.99)
    again, _ = refine(jax.tree.map(jnp.asarray, before), split.train, 0)
    jax.tree.map(np.testing.assert_array_equal, again, new)


@pytest.mark.parametrize("source", ["distilled", "none"])
def test_detail_learns_gently_beside_the_forward_motion_alone(tiny_capture, source):
    cfg = dataclasses.replace(
        CONFIG,
        forward=ForwardConfig(source=source, detail_rate=1e-5, detail_residual=0.7),
        optim=OptimConfig(detail=3e-3),
        loss=LossConfig(residual=0.2),
    )
    capture = open_capture(
        tiny_capture.subject, tiny_capture.root, cfg.capture, progress=False
    )
    weights = loss_weights(cfg, capture, Stage(1, False))
    found = (group_rates(cfg).detail, weights.residual)
    assert found == ((1e-5, 0.7) if source == "distilled" else (3e-3, 0.2))
    assert group_rates(cfg)._replace(detail=0) == GroupRates()._replace(detail=0)


@pytest.mark.parametrize("source, share", [("distilled", 0.25), ("none", 1.0)])
def test_detail_reaches_less_far_beside_the_forward_motion_alone(source, share):
    def motion(reach):
        forward = ForwardConfig(source=source, detail_reach=reach)
        cfg = dataclasses.replace(CONFIG, forward=forward)
        params = init_detail(
            jax.random.key(0),
            num_features=4,
            num_expr=3,
            hidden=cfg.detail.hidden,
            layers=cfg.detail.layers,
            octaves=cfg.detail.octaves,
        )
        params["basis_b"] = jnp.ones_like(params["basis_b"])
        detail_fn = make_deformation(cfg, ()).detail_fn
        return detail_fn(params, jnp.ones((2, 3)), jnp.ones((2, 4)), jnp.ones(3))

    far, near = motion(1.0), motion(0.25)
    np.testing.assert_allclose(near.means, share * far.means)
    assert np.all(far.means != 0)
    np.testing.assert_array_equal(near.rgb, far.rgb)
