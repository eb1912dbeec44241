import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.core.math import logit
from npga_jax.core.types import Gaussians, Splats
from npga_jax.training.density import (
    DensityOptions,
    adaptive,
    empty_stats,
    explore,
    growth_score,
    relocate,
    view_stats,
)

N, ALIVE = 20, 12
_rng = np.random.default_rng(0)


def cloud(scales=0.0005):
    return Gaussians(
        means=jnp.asarray(_rng.normal(size=(N, 3)) * 0.1, jnp.float32),
        quats=jnp.asarray(_rng.normal(size=(N, 4)), jnp.float32),
        log_scales=jnp.log(jnp.broadcast_to(jnp.asarray(scales), (N, 3))),
        logit_opacities=logit(jnp.full(N, 0.8)),
        sh=jnp.asarray(_rng.normal(size=(N, 1, 3)), jnp.float32),
        features=jnp.asarray(_rng.normal(size=(N, 4)), jnp.float32),
        bindings=jnp.asarray(_rng.uniform(size=(N, 2)), jnp.float32),
    )


def stats_with(errors, opacities=0.8):
    errors = jnp.zeros(N).at[: len(errors)].set(jnp.asarray(errors, jnp.float32))
    return empty_stats(N)._replace(
        error_sum=errors,
        error_peak=errors,
        opacity_peak=jnp.broadcast_to(jnp.asarray(opacities, jnp.float32), (N,)),
    )


OPTIONS = DensityOptions(growth=0.15, peak_weight=0.5, error_weight=1.0)


def run(gaussians, stats, alive=None, change=adaptive, **options):
    options = OPTIONS._replace(**options)
    if alive is None:
        alive = jnp.arange(N) < ALIVE
    moments = jax.tree.map(jnp.ones_like, gaussians)
    return change(
        gaussians,
        (moments, moments),
        alive,
        stats,
        jax.random.key(0),
        options=options,
    )


def test_the_worst_are_cloned_into_free_slots():
    gaussians = cloud()
    errors = np.arange(ALIVE)
    new, (mu, nu), alive, report = run(gaussians, stats_with(errors))
    assert (report.added, report.dropped, report.wanted) == (3, 0, 0)
    assert int(alive.sum()) == ALIVE + 3 and alive[:ALIVE].all()
    children = np.flatnonzero(alive[ALIVE:]) + ALIVE
    worst = {ALIVE - 1, ALIVE - 2, ALIVE - 3}
    copied = [
        int(np.argmin(np.sum((np.asarray(gaussians.features) - f) ** 2, axis=1)))
        for f in np.asarray(new.features)[children]
    ]
    assert set(copied) == worst
    for child, parent in zip(children, copied, strict=True):
        middle = (new.means[child] + new.means[parent]) / 2
        np.testing.assert_allclose(middle, gaussians.means[parent], atol=1e-7)
        np.testing.assert_array_equal(new.sh[child], gaussians.sh[parent])
        np.testing.assert_array_equal(new.bindings[child], gaussians.bindings[parent])
        # Two clones, one behind the other, hide as much as the one did.
        together = 1 - (1 - jax.nn.sigmoid(new.logit_opacities[child])) ** 2
        assert together == pytest.approx(0.8, rel=1e-4)
    changed = sorted(worst | set(children.tolist()))
    same = [i for i in range(N) if i not in changed]
    chex.assert_trees_all_equal(
        jax.tree.map(lambda x: x[np.array(same)], new),
        jax.tree.map(lambda x: x[np.array(same)], gaussians),
    )
    for moments in (mu, nu):
        for leaf in moments:
            assert not np.any(np.asarray(leaf)[changed])
            assert np.all(np.asarray(leaf)[same] == 1.0)


def test_long_gaussians_are_split_along_their_longest_axis():
    gaussians = cloud(scales=[0.004, 0.001, 0.0005])
    gaussians = gaussians._replace(quats=jnp.zeros((N, 4)).at[:, 0].set(1.0))
    new, _, alive, report = run(gaussians, stats_with([0, 0, 5.0]), growth=0.05)
    assert report.added == 1
    child = int(np.flatnonzero(alive[ALIVE:])[0]) + ALIVE
    for row, sign in ((2, -1), (child, 1)):
        np.testing.assert_allclose(
            new.means[row] - gaussians.means[2], [sign * 0.002, 0, 0], atol=1e-7
        )
        np.testing.assert_allclose(
            jnp.exp(new.log_scales[row]), [0.002, 0.001, 0.0005], rtol=1e-5
        )
        assert jax.nn.sigmoid(new.logit_opacities[row]) == pytest.approx(0.8, rel=1e-4)


def test_what_no_expression_shows_is_dropped_and_its_slot_used_again():
    opacities = np.full(N, 0.5)
    opacities[[1, 4]] = 0.001
    alive = jnp.ones(N, bool)
    new, _, after, report = run(cloud(), stats_with(np.ones(N), opacities), alive=alive)
    assert report.dropped == 2 and report.added == 2 and report.wanted == 1
    assert after.all()
    assert np.all(np.isfinite(jnp.concatenate([x.ravel() for x in new])))


def test_huge_gaussians_are_dropped():
    gaussians = cloud()
    gaussians = gaussians._replace(
        log_scales=gaussians.log_scales.at[0, 1].set(jnp.log(0.05))
    )
    *_, report = run(gaussians, stats_with(np.ones(N)), growth=0.05)
    assert report.dropped == 1


def test_relocation_draws_the_opaque():
    gaussians = cloud()
    faint = jnp.arange(N) % 2 == 0
    gaussians = gaussians._replace(
        logit_opacities=jnp.where(
            faint, logit(jnp.full(N, 1e-5)), logit(jnp.full(N, 0.9))
        )
    )
    stats = stats_with(np.ones(N), jnp.where(faint, 1e-5, 0.9))
    new, _, alive, report = run(
        gaussians, stats, alive=jnp.ones(N, bool), change=relocate, growth=0.25
    )
    assert report.dropped == 10 and report.added == 10 and alive.all()
    opaque = np.asarray(gaussians.features)[1::2]
    for row in np.asarray(new.features)[np.asarray(faint)]:
        assert np.min(np.sum((opaque - row) ** 2, axis=1)) == 0


def test_peaks_and_means_share_the_score():
    stats = stats_with([1.0, 0.0, 0.0])
    stats = stats._replace(error_peak=jnp.zeros(N).at[1].set(7.0))
    alive = jnp.arange(N) < 4
    by_mean = growth_score(stats, alive, OPTIONS._replace(peak_weight=0))
    by_peak = growth_score(stats, alive, OPTIONS._replace(peak_weight=1))
    assert np.argmax(by_mean) == 0 and np.argmax(by_peak) == 1
    assert by_mean[0] == pytest.approx(4.0) and np.all(by_peak[4:] < 0)


def test_gradients_are_counted_per_pixel():
    """Twice as far, a pixel is twice as much motion."""
    count = 2
    splats = Splats(
        means=jnp.array([[0.0, 0, 0], [0, 0, 1.0]]),
        quats=jnp.ones((count, 4)),
        scales=jnp.ones((count, 3)),
        opacities=jnp.array([0.2, 0.9]),
        colors=jnp.zeros((count, 1, 3)),
    )
    viewmat = jnp.eye(4).at[2, 3].set(1.0)
    K = jnp.array([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]])
    gradient = jnp.array([[3.0, 4.0, 9.0], [3.0, 4.0, -9.0]])
    stats = empty_stats(count)
    for scale in (1.0, 0.5):
        stats = view_stats(
            stats, splats, scale * gradient, scale * jnp.ones(count), viewmat, K
        )
    np.testing.assert_allclose(stats.gradient_peak, [0.05, 0.10], rtol=1e-5)
    np.testing.assert_allclose(stats.gradient_sum, [0.075, 0.15], rtol=1e-5)
    np.testing.assert_allclose(stats.error_sum, 1.5)
    np.testing.assert_allclose(stats.opacity_peak, [0.2, 0.9])


def test_one_compilation_serves_every_event():
    fn = jax.jit(chex.assert_max_traces(adaptive, n=1), static_argnames="options")
    gaussians, alive = cloud(), jnp.arange(N) < ALIVE
    moments = (jax.tree.map(jnp.ones_like, gaussians),)
    for event in range(4):
        gaussians, moments, alive, _ = fn(
            gaussians,
            moments,
            alive,
            stats_with(_rng.uniform(size=N)),
            jax.random.key(event),
            options=OPTIONS._replace(growth=0.1),
        )
    assert int(alive.sum()) == N


def test_only_the_faint_wander():
    gaussians = cloud()._replace(
        logit_opacities=logit(jnp.where(jnp.arange(N) < 5, 1e-4, 0.5))
    )
    moved = explore(gaussians, jnp.arange(N) < 15, jax.random.key(1), rate=1.0)
    distance = np.linalg.norm(moved.means - gaussians.means, axis=1)
    assert np.all(distance[:5] > 1e-5) and np.all(distance[5:] < 1e-8)
