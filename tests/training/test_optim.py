import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from npga_jax.core.types import AvatarParams, Gaussians
from npga_jax.training.optim import (
    GroupRateState,
    group_rates,
    make_optimizer,
    scale_by_group,
)
from npga_jax.training.settings import OptimConfig
from tests import small_scene

NUM_STEPS = 8
CONFIG = OptimConfig(
    means=1e-4,
    detail=2e-3,
    coarse=3e-5,
    screen=1e-3,
    quats=4e-3,
    log_scales=5e-3,
    logit_opacities=6e-2,
    sh=7e-3,
    features=8e-4,
    final_fraction=0.05,
)
RATES = group_rates(CONFIG, has_forward=True)
DECAYING = {"means", "detail", "forward", "features"}


def make_params():
    """All zeros, so that a parameter is the sum of its updates."""
    params, _ = small_scene.make_params(sh_degree=1)
    forward = {"layers": [{"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}]}
    return jax.tree.map(jnp.zeros_like, params._replace(forward=forward))


def random_gradient(step):
    """Gradients of all sizes, and some that are exactly zero."""
    rng = np.random.default_rng(step)

    def draw(x):
        size = 10.0 ** rng.integers(-6, 3)
        value = size * rng.normal(size=x.shape) * (rng.uniform(size=x.shape) > 0.2)
        return value.astype(np.float32)

    return jax.tree.map(draw, make_params())


def split_sh(params: AvatarParams):
    """The same leaves, with one group for each part of the colour."""
    groups = params.gaussians._asdict()
    color = groups.pop("sh")
    del groups["bindings"]  # Not trained: see below.
    return {
        **groups,
        "sh": color[:, :1],
        "sh_rest": color[:, 1:],
        "detail": params.detail,
        "forward": params.forward,
    }


def separate_adams():
    def schedule(rate):
        def at(count):
            return rate * RATES.final_fraction ** jnp.minimum(count / NUM_STEPS, 1.0)

        return at

    rates = RATES._asdict()
    del rates["final_fraction"], rates["screen"]
    rates["sh_rest"] = rates["sh"] / 20
    adams = {
        name: optax.adam(schedule(rate) if name in DECAYING else rate, eps=1e-15)
        for name, rate in rates.items()
    }
    return optax.partition(
        adams,
        lambda params: {
            name: jax.tree.map(lambda _, name=name: name, tree)
            for name, tree in params.items()
        },
    )


def run(optimizer, params, num_steps, transform=lambda tree: tree):
    @jax.jit
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params = transform(params)
    state = optimizer.init(params)
    for i in range(num_steps):
        params, state = step(params, state, transform(random_gradient(i)))
        yield params


def test_one_adam_with_factors_is_one_adam_per_group():
    start = make_params()
    ours = run(make_optimizer(CONFIG, NUM_STEPS, has_forward=True), start, 10)
    theirs = run(separate_adams(), start, 10, split_sh)
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if i in (0, 9):
            jax.tree.map(assert_close, split_sh(a), b)


def assert_close(x, y):
    # Steps of opposite signs may cancel: not every element has six digits left.
    assert np.abs(y).max() > 0
    np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6 * np.abs(y).max())


def rates_after(count):
    """What a gradient of one is turned into after `count` steps, by group."""
    transform = scale_by_group(RATES, NUM_STEPS)
    ones = jax.tree.map(jnp.ones_like, make_params())
    state = GroupRateState(jnp.asarray(count, jnp.int32))
    updates, state = transform.update(ones, state)
    assert state.count == count + 1
    return jax.tree.map(lambda x: -x, split_sh(updates))


@pytest.mark.parametrize("count", [0, NUM_STEPS, 3 * NUM_STEPS])
def test_step_sizes_fall_to_their_final_fraction_and_stay(count):
    for name, tree in rates_after(count).items():
        rate = RATES.sh / 20 if name == "sh_rest" else getattr(RATES, name)
        if name in DECAYING and count:
            rate *= RATES.final_fraction
        for leaf in jax.tree.leaves(tree):
            np.testing.assert_allclose(leaf, rate, rtol=1e-5, err_msg=name)


def test_moments_have_the_shapes_of_the_parameters():
    params = make_params()
    adam, _ = make_optimizer(CONFIG, NUM_STEPS, has_forward=True).init(params)
    for moment in (adam.mu, adam.nu):
        assert isinstance(moment.gaussians, Gaussians)
        assert jax.tree.map(jnp.shape, moment) == jax.tree.map(jnp.shape, params)


def test_detail_learns_gently_beside_the_forward_motion_unless_told_otherwise():
    def detail(value, has_forward):
        return group_rates(OptimConfig(detail=value), has_forward=has_forward).detail

    assert detail(None, True) < detail(None, False)
    assert detail(0.3, True) == detail(0.3, False) == 0.3
    others = [group_rates(OptimConfig(), has_forward=f) for f in (True, False)]
    assert others[0]._replace(detail=0) == others[1]._replace(detail=0)


def test_what_carries_a_gaussian_is_not_trained():
    params = make_params()
    optimizer = make_optimizer(CONFIG, NUM_STEPS, has_forward=True)
    gradient = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    np.testing.assert_array_equal(updates.gaussians.bindings, 0)
    assert np.abs(updates.gaussians.means).min() > 0
