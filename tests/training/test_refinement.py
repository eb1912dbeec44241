"""When the cloud changes and images grow, and what an event does to a state."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.avatar.method import DensityControl, code_space_template
from npga_jax.avatar.settings import DetailConfig, ForwardConfig, GaussianConfig
from npga_jax.core.errors import InputError
from npga_jax.data.opening import open_capture
from npga_jax.data.settings import CaptureConfig
from npga_jax.data.splits import holdout_split
from npga_jax.rasterizer.sh import rgb_to_sh
from npga_jax.training.building import default_method
from npga_jax.training.density import DensityOptions, growth_score
from npga_jax.training.initial_points import InitialPoints
from npga_jax.training.refinement import (
    Refiner,
    check_averaging,
    event_at,
    event_steps,
)
from npga_jax.training.settings import (
    DensityConfig,
    LossConfig,
    TrainConfig,
    validate,
)
from npga_jax.training.stages import Stage, check_halvings, make_isects_fn, stage_at
from npga_jax.training.start import neighbour_graph, state_from_points
from npga_jax.training.step import downscale_batch
from tests import small_scene

CONFIG = TrainConfig(
    steps=200,
    capture=CaptureConfig(width=32),
    gaussians=GaussianConfig(capacity=40, feature_dim=4),
    detail=DetailConfig(hidden=8, layers=2, octaves=2),
    density=DensityConfig(start=0.1, stop=0.5, events=5, views=3, growth=0.1),
    loss=LossConfig(lpips=0.1, lpips_from=0.75, laplacian_features=0.1),
    forward=ForwardConfig(source="none"),
    halvings=(0.2, 0.5),
)
METHOD = default_method(CONFIG)
OPTIONS = DensityOptions(growth=0.1, peak_weight=0.5, error_weight=0.5)


def method_with(**density):
    cfg = dataclasses.replace(
        CONFIG, density=dataclasses.replace(CONFIG.density, **density)
    )
    return default_method(cfg)


def test_events_are_spread_between_start_and_stop():
    assert event_steps(CONFIG, METHOD) == (20, 40, 60, 80, 100)
    assert event_at(CONFIG, METHOD, 60) == 2
    assert event_at(CONFIG, METHOD, 61) is None
    assert event_steps(CONFIG, method_with(strategy="none")) == ()
    assert event_steps(CONFIG, method_with(start=0.5, stop=0.4)) == ()


@pytest.mark.parametrize(
    ("events", "average_from", "last"),
    [((0.3, 0.97), 0.95, 194), ((1.0,), 0.99, 200), ((0.5, 0.1), 0.4, 100)],
)
def test_no_event_comes_while_weights_are_averaged(events, average_from, last):
    """Whoever says when events are: the method decides, not the settings."""
    own = METHOD.replace(density=METHOD.density.replace(events=events))
    cfg = dataclasses.replace(CONFIG, average_from=average_from)
    message = f"--average-from {average_from}: .* after step {last} of 200"
    with pytest.raises(InputError, match=message):
        check_averaging(cfg, own)
    check_averaging(dataclasses.replace(cfg, average_from=max(events)), own)


def test_average_may_begin_early_where_nothing_is_replaced():
    late = dataclasses.replace(CONFIG, density=DensityConfig(stop=0.97))
    validate(late)
    check_averaging(late, METHOD.replace(density=DensityControl()))
    with pytest.raises(InputError, match=r"expected 0\.97 or more"):
        check_averaging(late, default_method(late))


@pytest.mark.parametrize(("width", "most"), [(275, 4), (31, 0), (15, 0)])
def test_images_keep_a_size_to_begin_with(width, most):
    footage = types.SimpleNamespace(width=width, height=2 * width)
    check_halvings(dataclasses.replace(CONFIG, halvings=(0.1,) * most), footage)
    many = dataclasses.replace(CONFIG, halvings=(0.1,) * (most + 1))
    with pytest.raises(InputError, match=f"can be halved {most} times, not {most + 1}"):
        check_halvings(many, footage)


def test_short_runs_have_no_event_twice():
    steps = event_steps(dataclasses.replace(CONFIG, steps=4), METHOD)
    assert len(set(steps)) == len(steps) and all(1 <= s <= 4 for s in steps)


@pytest.mark.parametrize(
    ("step", "downscale", "has_lpips"),
    [(0, 4, False), (39, 4, False), (40, 2, False), (100, 1, False), (150, 1, True)],
)
def test_images_grow_and_losses_join_in(step, downscale, has_lpips):
    stage = stage_at(CONFIG, METHOD, step, has_mattes=True)
    usual = {"l1", "ssim", "alpha", "residual", "laplacian_features"}
    assert stage.downscale == downscale
    assert set(stage.terms) == usual | ({"lpips"} if has_lpips else set())


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


@pytest.fixture(scope="module")
def started(tiny_capture):
    """A grey ball of 20 Gaussians before the tiny capture's cameras."""
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
    codes = code_space_template(("a", "b", "c"))
    state = state_from_points(CONFIG, METHOD, points, codes)
    count = make_isects_fn(CONFIG, METHOD, capture, split.train)
    stage = Stage(1, ("l1", "ssim", "alpha"))
    return Refiner(CONFIG, METHOD, capture, stage, 4 * count(state)), state, split


def test_event_adds_where_images_are_wrong(started):
    refiner, state, split = started
    survey = refiner.look(state, split.train, 0)
    assert survey.num_dropped == 0 < survey.num_isects
    new, report = refiner.change(state, survey.stats, 0)
    assert report.added == 4 and report.dropped == 0
    assert int(new.alive.sum()) == 24
    assert all(
        jax.tree.leaves(jax.tree.map(lambda x: np.isfinite(x).all(), new.params))
    )
    # Those that were refined are those whose share in the errors is largest.
    score = np.asarray(growth_score(survey.stats, state.alive, OPTIONS))
    means = [np.asarray(s.params.gaussians.means) for s in (state, new)]
    moved = np.flatnonzero(np.any(means[0][:20] != means[1][:20], axis=1))
    np.testing.assert_array_equal(moved, np.sort(np.argsort(-score[:20])[:4]))
    # Each new one lies beside one of them, as far on its other side.
    for added in means[1][20:24]:
        middles = (added + means[1][moved]) / 2
        assert np.abs(middles - means[0][moved]).max(axis=1).min() < 1e-6
    # Neighbours are found anew, and the new ones have some.
    graph = neighbour_graph(CONFIG, METHOD, new.params.gaussians, new.alive)
    assert np.all(np.asarray(graph.weights)[np.asarray(new.alive)].sum(1) > 0.99)
    again = refiner.change(state, refiner.look(state, split.train, 0).stats, 0)[0]
    jax.tree.map(np.testing.assert_array_equal, again, new)


def test_what_is_clipped_at_black_has_its_share_in_errors(started):
    refiner, state, split = started

    def error_of(level):
        """Of a cloud whose colour before the clip is `level`."""
        gaussians = state.params.gaussians
        sh = jnp.zeros_like(gaussians.sh).at[:, 0].set(rgb_to_sh(level))
        params = state.params._replace(gaussians=gaussians._replace(sh=sh))
        return refiner.look(state._replace(params=params), split.train, 0).stats

    black, barely = error_of(-0.5), error_of(1e-4)
    np.testing.assert_allclose(black.error_sum, barely.error_sum, rtol=0.01)
    assert np.min(np.asarray(black.error_sum)[np.asarray(state.alive)]) > 0


@pytest.mark.parametrize(("source", "share"), [("distilled", 0.25), ("none", 1.0)])
def test_detail_reaches_less_far_beside_the_forward_motion_alone(source, share):
    def motion(reach):
        cfg = dataclasses.replace(
            CONFIG, forward=ForwardConfig(source=source, detail_reach=reach)
        )
        network = default_method(cfg).detail
        params = network.init(
            jax.random.key(0), code_space_template(("a", "b", "c")), 4
        )
        params["basis_b"] = jnp.ones_like(params["basis_b"])
        return network.apply(params, jnp.ones((2, 3)), jnp.ones((2, 4)), jnp.ones(3))

    far, near = motion(1.0), motion(0.25)
    np.testing.assert_allclose(near.means, share * far.means)
    assert np.all(far.means != 0)
    np.testing.assert_array_equal(near.rgb, far.rgb)
