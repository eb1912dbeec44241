import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.core.types import Gaussians
from npga_jax.training.laplacian import build_graph, empty_graph, laplacian_energy

_rng = np.random.default_rng(0)


def cloud(means, features=None):
    count = len(means)
    if features is None:
        features = np.zeros((count, 2))
    return Gaussians(
        means=jnp.asarray(means, jnp.float32),
        quats=jnp.zeros((count, 4)),
        log_scales=jnp.zeros((count, 3)),
        logit_opacities=jnp.zeros(count),
        sh=jnp.zeros((count, 1, 3)),
        features=jnp.asarray(features, jnp.float32),
        bindings=jnp.zeros((count, 2)),
    )


def line(count=20, step=0.001):
    return np.arange(count)[:, None] * np.array([[step, 0, 0]])


def test_neighbours_are_the_nearest_living_ones():
    alive = np.ones(20, bool)
    alive[3] = False
    graph = build_graph(cloud(line()), jnp.asarray(alive), neighbours=2)
    assert set(np.asarray(graph.ids[4])) == {5, 6}
    assert set(np.asarray(graph.ids[10])) == {9, 11}
    np.testing.assert_allclose(graph.weights[10], 0.5, rtol=1e-5)
    np.testing.assert_allclose(np.sum(graph.weights, axis=1), alive, rtol=1e-5)
    assert not np.isin(3, np.asarray(graph.ids)[alive])


def test_hyper_coordinates_keep_touching_lips_apart():
    upper, lower = line(), line() + np.array([0, 0.0002, 0])
    features = np.repeat([[0.0, 0.0], [0.5, 0.0]], 20, axis=0)
    gaussians = cloud(np.concatenate([upper, lower]), features)
    alive = jnp.ones(40, bool)
    tied = build_graph(gaussians, alive, neighbours=3)
    assert np.any(np.asarray(tied.ids[:20]) >= 20)
    free = build_graph(
        gaussians, alive, neighbours=3, hyper_columns=2, hyper_scale=0.025
    )
    assert np.all(np.asarray(free.ids[:20]) < 20)


def test_fields_that_are_linear_cost_nothing_inside_a_line():
    graph = build_graph(cloud(line(40)), jnp.ones(40, bool), neighbours=2)
    linear = jnp.arange(40.0)[:, None] * jnp.array([[1.0, -2.0]])
    inside = laplacian_energy(linear, graph, jnp.int32(10), rows=20)
    assert inside == pytest.approx(0.0, abs=1e-8)
    bent = laplacian_energy(linear.at[20].add(1.0), graph, jnp.int32(10), rows=20)
    # The point itself is off by 1 in two columns; each neighbour sees half of it.
    assert bent == pytest.approx(2 * (1 + 2 * 0.25) / 20, rel=1e-5)


def test_dead_gaussians_and_empty_graphs_cost_nothing():
    values = jnp.asarray(_rng.normal(size=(30, 3)), jnp.float32)
    start = jnp.int32(0)
    assert laplacian_energy(values, empty_graph(30, 4), start, rows=30) == 0
    alive = jnp.arange(30) < 12
    graph = build_graph(cloud(_rng.normal(size=(30, 3))), alive, neighbours=4)
    some = laplacian_energy(values, graph, start, rows=12)
    everything = laplacian_energy(values.at[12:].set(jnp.inf), graph, start, rows=12)
    assert some == everything > 0


def test_fewer_points_than_neighbours_are_enough():
    for count in (1, 2, 3):
        graph = build_graph(
            cloud(_rng.normal(size=(8, 3))), jnp.arange(8) < count, neighbours=5
        )
        assert graph.ids.shape == (8, 5)
        energy = laplacian_energy(jnp.ones((8, 1)), graph, jnp.int32(0), rows=8)
        assert energy == pytest.approx(0.0, abs=1e-10)


def test_gradient_agrees_with_finite_differences():
    graph = build_graph(
        cloud(_rng.normal(size=(10, 3))), jnp.ones(10, bool), neighbours=3
    )
    values = jnp.asarray(_rng.normal(size=(10, 2)), jnp.float32)

    def energy(x):
        return laplacian_energy(x, graph, jnp.int32(2), rows=6)

    grad = jax.grad(energy)(values)
    direction = jnp.asarray(_rng.normal(size=values.shape), jnp.float32)
    step = 1e-2
    numeric = (
        energy(values + step * direction) - energy(values - step * direction)
    ) / (2 * step)
    assert jnp.sum(grad * direction) == pytest.approx(float(numeric), rel=1e-3)


def test_what_another_bone_carries_is_no_neighbour():
    bindings = np.zeros((20, 2), np.float32)
    bindings[1::2, 0] = 1.0
    gaussians = cloud(line())._replace(bindings=jnp.asarray(bindings))
    graph = build_graph(gaussians, jnp.ones(20, bool), neighbours=2)
    assert set(np.asarray(graph.ids[4])) == {2, 6}
    assert set(np.asarray(graph.ids[11])) == {9, 13}
