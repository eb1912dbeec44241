import threading
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.data import loader
from npga_jax.data.loader import frame_weights, load_batch, plan_step, prefetch
from npga_jax.data.splits import Views, holdout_split

FRONT = "222200037"


@pytest.fixture
def train(capture):
    return holdout_split(capture, "FREE", FRONT).train


def loader_threads():
    return [t for t in threading.enumerate() if t.name == "prefetch"]


def test_plan_depends_on_seed_and_step_alone(train):
    plans = [plan_step(s, seed=3, train=train, views_per_step=2) for s in [5, 0, 9, 5]]
    assert plans[0] == plans[3]
    orders = {
        seed: [
            plan_step(s, seed=seed, train=train, views_per_step=1) for s in range(20)
        ]
        for seed in (0, 1)
    }
    assert orders[0] != orders[1]


def test_every_timestep_comes_once_an_epoch(train):
    for epoch in range(3):
        steps = range(epoch * len(train), (epoch + 1) * len(train))
        seen = [plan_step(s, seed=0, train=train, views_per_step=1)[0] for s in steps]
        assert sorted(t.index for t in seen) == [v.timestep.index for v in train]


def test_rare_expressions_come_more_often_and_all_come_in_the_end():
    codes = np.zeros((12, 3))
    codes[:10] += np.random.default_rng(0).normal(0, 0.01, (10, 3))
    codes[10], codes[11] = (1, 0, 0), (0, 1, 0)
    weights = frame_weights(codes, 1.0)
    assert weights.mean() == pytest.approx(1) and weights[10:].min() > 2
    np.testing.assert_allclose(frame_weights(codes, 0.0), 1.0)
    views = tuple(Views(index, ("a",)) for index in range(12))
    seen = [
        plan_step(s, seed=0, train=views, views_per_step=1, weights=weights)[0]
        for s in range(1200)
    ]
    counts = np.bincount(seen, minlength=12)
    np.testing.assert_allclose(counts / 100, weights, rtol=0.5, atol=0.02)
    assert counts.min() > 0
    uniform = [
        plan_step(s, seed=0, train=views, views_per_step=1, weights=np.ones(12))[0]
        for s in range(12)
    ]
    assert sorted(uniform) == list(range(12))


def dense_weights(codes: np.ndarray, balance: float) -> np.ndarray:
    codes = codes / np.maximum(codes.std(axis=0), 1e-6)
    squares = ((codes[:, None] - codes[None]) ** 2).sum(axis=-1)
    near = np.sort(squares, axis=1)[:, 1:6]
    rarity = np.sqrt(near.mean(axis=1)) if near.size else np.ones(len(codes))
    weights = np.maximum(rarity, 1e-6 + 0.1 * rarity.mean()) ** balance
    return weights / weights.mean()


@pytest.mark.parametrize("num_frames", [1, 2, 5, 6, 7, 90])
def test_weights_by_blocks_are_those_of_all_at_once(num_frames, monkeypatch):
    codes = np.random.default_rng(0).normal(5, 1, (num_frames, 4)).astype(np.float32)
    codes[num_frames // 2 :: 3] = codes[0]  # Some frames repeat.
    monkeypatch.setattr("npga_jax.data.loader._BLOCK_DISTANCES", 300)
    expected = dense_weights(codes.astype(np.float64), 0.7)
    np.testing.assert_allclose(frame_weights(codes, 0.7), expected, rtol=1e-6)


def test_weights_of_many_frames_take_no_more_memory_than_a_block(monkeypatch):
    block, num_frames = 1 << 16, 20_000
    monkeypatch.setattr("npga_jax.data.loader._BLOCK_DISTANCES", block)
    monkeypatch.setattr("npga_jax.data.loader._rarity", first_block_alone(loader))
    codes = np.random.default_rng(0).normal(size=(num_frames, 8))
    tracemalloc.start()
    frame_weights(codes, 1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Distances and the order of a block, and a few copies of the codes.
    assert peak < 4 * 8 * block + 6 * codes.nbytes


def first_block_alone(module):
    """`_rarity` of the first blocks; what the others give is as large, and quicker."""
    original = module._rarity

    def rarity(codes, rows):
        if rows.start < 20 * (rows.stop - rows.start):
            return original(codes, rows)
        return np.ones(len(codes[rows]))

    return rarity


def test_cameras_do_not_repeat_and_vary(train):
    plans = [plan_step(s, seed=0, train=train, views_per_step=2)[1] for s in range(12)]
    assert all(len(set(cameras)) == 2 and FRONT not in cameras for cameras in plans)
    single = {plan_step(s, seed=0, train=train, views_per_step=1)[1] for s in range(30)}
    assert len(single) == 2


@pytest.mark.parametrize("views_per_step", [0, 3])
def test_impossible_number_of_views_is_an_error(train, views_per_step):
    with pytest.raises(InputError, match="2 training cameras"):
        plan_step(0, seed=0, train=train, views_per_step=views_per_step)


def test_batch_holds_what_the_capture_holds(capture):
    timestep = capture.timesteps[2]
    cameras = ("222200046", FRONT)
    batch = load_batch(capture, timestep, cameras)
    assert batch.rgb.shape == (2, 24, 16, 3) and batch.rgb.dtype == np.uint8
    assert batch.alpha.shape == (2, 24, 16) and batch.alpha.dtype == np.uint8
    assert batch.viewmats.shape == (2, 4, 4) and batch.Ks.shape == (2, 3, 3)
    assert batch.world_from_head.shape == (4, 4) and batch.expr.shape == (3,)
    for i, camera in enumerate(cameras):
        np.testing.assert_array_equal(batch.rgb[i], capture.rgb(timestep, camera))
        np.testing.assert_array_equal(batch.alpha[i], capture.alpha(timestep, camera))
        np.testing.assert_array_equal(batch.Ks[i], capture.camera(timestep, camera).K)
        expected = 255 * np.isin(capture.labels(timestep, camera), (8, 9, 11, 12, 13))
        np.testing.assert_array_equal(batch.parts[i], expected)


def test_without_mattes_everything_is_the_person(capture):
    entries = {k: e for k, e in capture.entries.items() if k[2] != "alpha"}
    bare = replace(capture, entries=entries)
    batch = load_batch(bare, bare.timesteps[0], (FRONT,))
    assert (batch.alpha == 255).all()


def test_resumed_run_sees_what_it_would_have_seen(capture, train):
    settings = dict(seed=4, views_per_step=2)
    whole = list(prefetch(capture, train, **settings, start_step=0, num_steps=9))
    rest = list(prefetch(capture, train, **settings, start_step=5, num_steps=4))
    assert [s for s, _ in whole] == list(range(9))
    for (step, batch), (other_step, other) in zip(whole[5:], rest, strict=True):
        assert step == other_step
        for a, b in zip(batch, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_batches_are_placed_in_the_thread_that_loads_them(capture, train):
    def place(batch):
        assert threading.current_thread().name == "prefetch"
        return batch.rgb.shape

    settings = dict(seed=0, views_per_step=2, start_step=3, num_steps=2)
    batches = list(prefetch(capture, train, **settings, place=place))
    assert batches == [(3, (2, 24, 16, 3)), (4, (2, 24, 16, 3))]


def test_prefetch_forwards_exceptions_and_ends_its_thread(capture, train):
    broken = replace(capture, tracks={})
    batches = prefetch(
        broken, train, seed=0, views_per_step=1, start_step=0, num_steps=3
    )
    with pytest.raises(InputError):
        next(batches)
    assert not loader_threads()


def test_prefetch_is_bounded_and_ends_when_closed(capture, train, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        "npga_jax.data.loader.load_batch", lambda *args: loaded.append(args)
    )
    batches = prefetch(
        capture, train, seed=0, views_per_step=1, start_step=0, num_steps=1000, depth=2
    )
    next(batches)
    time.sleep(0.2)
    assert len(loaded) <= 4
    assert len(loader_threads()) == 1
    batches.close()
    assert not loader_threads()
