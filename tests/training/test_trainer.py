"""The loop around the step; the step itself is a stand-in that costs nothing."""

import dataclasses
import json
import signal

import jax
import numpy as np
import pytest

from npga_jax.avatar.method import code_space_template
from npga_jax.avatar.settings import DetailConfig, ForwardConfig, GaussianConfig
from npga_jax.core import checkpoint
from npga_jax.core.checkpoint import CHECKPOINTS
from npga_jax.core.errors import InputError, Stopped
from npga_jax.core.metrics_log import METRICS_FILE
from npga_jax.data.opening import open_capture
from npga_jax.data.settings import CaptureConfig
from npga_jax.data.splits import holdout_split
from npga_jax.rasterizer.capacity import padded_capacity
from npga_jax.training import parallel, rescue
from npga_jax.training import trainer as fitting
from npga_jax.training.building import default_method
from npga_jax.training.initial_points import InitialPoints
from npga_jax.training.run_folder import CURVE_FILE
from npga_jax.training.settings import DensityConfig, TrainConfig
from npga_jax.training.stages import stage_at
from npga_jax.training.start import state_from_points
from tests import small_scene
from tests.synthetic_capture import write_capture

CONFIG = TrainConfig(
    steps=20,
    save_every=8,
    log_every=5,
    preview_every=1000,
    num_devices=1,
    max_isects=100,
    capture=CaptureConfig(width=32),
    gaussians=GaussianConfig(capacity=64, feature_dim=4),
    detail=DetailConfig(hidden=8, layers=2, octaves=2),
    forward=ForwardConfig(source="none"),
    density=DensityConfig(strategy="none"),
)
METHOD = default_method(CONFIG)


@pytest.fixture(scope="module")
def capture(tiny_capture):
    return open_capture(
        tiny_capture.subject, tiny_capture.root, CONFIG.capture, progress=False
    )


@pytest.fixture(scope="module")
def first_state():
    points = small_scene.ball_points(10)
    spacing = np.full(len(points), 0.01, np.float32)
    points = InitialPoints(
        points, 0 * points + 0.5, spacing, points[:, :0], 0 * points[:, :2]
    )
    codes = code_space_template(("a", "b", "c"))
    state = state_from_points(CONFIG, METHOD, points, codes)
    return jax.tree.map(np.asarray, state)


class FakeStep:
    """Counts steps, and reports what it is told to report at some of them."""

    def __init__(self, **changes_at):
        self.changes_at = changes_at
        self.seen = []

    def __call__(self, state, batch):
        index = len(self.seen)
        self.seen.append(batch.expr)
        metrics = {
            "loss": 0.5,
            "psnr": 20.0,
            "num_alive": 10,
            "num_isects": 90,
            "num_dropped": 0,
            "num_invalid": 0,
            "is_finite": True,
        }
        change = self.changes_at.get(f"at_{index}", {})
        if callable(change):
            change = change() or {}
        metrics |= change
        metrics["is_finite"] &= not state.halted
        if metrics["is_finite"]:
            state = state._replace(step=state.step + 1)
        state = state._replace(halted=np.asarray(not metrics["is_finite"]))
        return state, {k: np.asarray(v) for k, v in metrics.items()}


@pytest.fixture
def make_trainer(capture, first_state, tmp_path):
    def make(step_fn, state=first_state, *, test_fn=None, folder=tmp_path, **changes):
        cfg = dataclasses.replace(CONFIG, **changes)
        split = holdout_split(capture, "FREE", "222200037")
        trainer = fitting.Trainer(
            cfg, default_method(cfg), capture, split, folder, state, test_fn=test_fn
        )
        trainer.step_fn = step_fn
        return trainer

    return make


def saved_steps(folder):
    names = [p.name for p in (folder / CHECKPOINTS).glob("*")]
    return sorted(int(name) for name in names)


def logged_steps(folder):
    lines = (folder / METRICS_FILE).read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_run_logs_and_saves_when_it_should(make_trainer, tmp_path):
    state = make_trainer(FakeStep()).run()
    assert state.step == 20
    assert logged_steps(tmp_path) == [1, 5, 10, 15, 20]
    assert saved_steps(tmp_path) == [8, 16, 20]


class CountingStep(FakeStep):
    """Sets all weights to the number of steps taken."""

    def __call__(self, state, batch):
        state, metrics = super().__call__(state, batch)
        step = np.float32(state.step)
        params = jax.tree.map(lambda x: np.full_like(x, step), state.params)
        return state._replace(params=params), metrics


def weights(state):
    """The number that all weights are."""
    values = np.unique(np.concatenate([np.ravel(x) for x in jax.tree.leaves(state)]))
    assert len(values) == 1
    return values[0]


def test_run_ends_with_the_mean_of_the_last_weights(
    make_trainer, first_state, tmp_path
):
    # Steps 15 to 20 count; what is saved at step 16 goes on from its own weights.
    last = make_trainer(CountingStep(), average_from=0.7).run()
    assert weights(last.params) == 17.5
    template = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), first_state
    )
    replicated = parallel.replicated(parallel.make_mesh(1))

    def saved(step):
        return checkpoint.load_state(
            tmp_path / CHECKPOINTS, step, template, replicated
        )[0]

    assert weights(saved(20).params) == 17.5
    assert weights(saved(16).params) == 16 and weights(saved(16).average) == 15.5


def test_interrupted_average_goes_on(make_trainer, first_state):
    state = jax.tree.map(lambda x: np.full_like(x, 15.5), first_state.params)
    state = first_state._replace(step=np.asarray(16, np.int32), average=state)
    last = make_trainer(CountingStep(), state, average_from=0.7).run()
    assert weights(last.params) == 17.5


def test_run_ends_with_the_last_weights_where_none_are_averaged(make_trainer):
    assert weights(make_trainer(CountingStep(), average_from=1.0).run().params) == 20


def test_tests_on_the_way_are_kept_and_are_no_training_time(
    make_trainer, tmp_path, monkeypatch
):
    clock = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def measure(state):
        clock[0] += 7.0
        return {"novel_view_face": float(state.step)}

    trainer = make_trainer(FakeStep(), test_every=8, test_fn=measure)
    trainer.run()
    lines = (tmp_path / CURVE_FILE).read_text().splitlines()
    expected = [
        {"step": step, "seconds": 0.0, "novel_view_face": step} for step in (8, 16, 20)
    ]
    assert [json.loads(line) for line in lines] == expected
    assert trainer.clock.seconds == 0.0


def test_state_that_cannot_be_tested_is_not_lost(make_trainer, tmp_path):
    def refuse(state):
        raise InputError("a frame is gone")

    trainer = make_trainer(FakeStep(), test_every=5, test_fn=refuse)
    with pytest.raises(InputError, match="a frame is gone"):
        trainer.run()
    assert saved_steps(tmp_path) == [5]


def test_test_that_was_not_made_is_made_by_the_run_that_goes_on(
    make_trainer, first_state, tmp_path
):
    lines = [{"step": 8}, {"step": 20}]
    (tmp_path / CURVE_FILE).write_text("".join(json.dumps(x) + "\n" for x in lines))
    later = first_state._replace(step=np.asarray(16, np.int32))
    trainer = make_trainer(
        FakeStep(),
        later,
        test_every=8,
        test_fn=lambda state: {"psnr": float(state.step)},
    )
    trainer.run()
    kept = [json.loads(x) for x in (tmp_path / CURVE_FILE).read_text().splitlines()]
    assert [line["step"] for line in kept] == [8, 16, 20]
    assert [line.get("psnr") for line in kept] == [None, 16.0, 20.0]


def test_no_tests_leave_no_file(make_trainer, tmp_path):
    make_trainer(FakeStep()).run()
    assert not (tmp_path / CURVE_FILE).exists()


def test_finished_run_has_nothing_left_to_do(make_trainer, first_state, tmp_path):
    step = FakeStep()
    done = first_state._replace(step=np.asarray(20, np.int32))
    assert make_trainer(step, done).run().step == 20
    assert not step.seen and not (tmp_path / CHECKPOINTS).exists()


@pytest.mark.parametrize("index", [0, 6, 18])
def test_bad_step_stops_the_run_even_between_log_lines(make_trainer, tmp_path, index):
    step = FakeStep(**{f"at_{index}": {"is_finite": False, "loss": np.nan}})
    with pytest.raises(fitting.NonFiniteError, match=f"step {index} is not finite"):
        make_trainer(step).run()
    assert len(step.seen) < 20 or index == 18
    batch = np.load(tmp_path / "crash" / f"batch_{index}.npz")
    np.testing.assert_array_equal(batch["expr"], step.seen[index])
    # What is saved is the state before that step, however late it was noticed.
    assert saved_steps(tmp_path)[-1:] == ([index] if index else [])


@pytest.mark.parametrize("broken", ["place", "data"])
def test_batch_that_cannot_be_kept_does_not_cost_the_training(
    make_trainer, tmp_path, monkeypatch, broken
):
    step = FakeStep(at_6={"is_finite": False, "loss": np.nan})
    trainer = make_trainer(step)
    if broken == "place":
        (tmp_path / "crash").write_text("in the way")
    else:

        def gone(*args):
            raise OSError("the cache has gone")

        monkeypatch.setattr(rescue, "load_batch", gone)
    with pytest.raises(
        fitting.NonFiniteError, match=r"step 6 is not finite.*batch could not be kept"
    ):
        trainer.run()
    assert saved_steps(tmp_path) == [6]


def test_gaussians_that_cannot_be_drawn_are_reported_once(make_trainer, capsys):
    make_trainer(FakeStep(at_3={"num_invalid": 7}, at_12={"num_invalid": 9})).run()
    assert capsys.readouterr().err.count("up to 7 Gaussians") == 1


def test_capacity_that_indices_cannot_count_is_refused():
    with pytest.raises(InputError, match="far too large"):
        padded_capacity(2**31 - 1)
    assert padded_capacity(10**9) >= 1.5 * 10**9


def test_opacity_is_not_compared_where_there_are_no_mattes(capture, tmp_path):
    write_capture(tmp_path, "bare", with_alpha=False)
    bare = open_capture("bare", tmp_path, CONFIG.capture, progress=False)
    terms = [
        stage_at(CONFIG, METHOD, 0, has_mattes=c.has_mattes).terms
        for c in (bare, capture)
    ]
    assert "alpha" not in terms[0] and "alpha" in terms[1]
    assert set(terms[1]) - set(terms[0]) == {"alpha"}


def test_state_that_is_not_finite_is_not_saved(make_trainer, first_state, tmp_path):
    gaussians = first_state.params.gaussians
    gaussians = gaussians._replace(means=np.full_like(gaussians.means, np.nan))
    params = first_state.params._replace(gaussians=gaussians)
    trainer = make_trainer(FakeStep(), first_state._replace(params=params))
    trainer.state = trainer.state._replace(step=np.asarray(3, np.int32))
    with pytest.raises(InputError, match="gaussians/means is not finite at step 3"):
        trainer.save()
    assert not (tmp_path / CHECKPOINTS).exists()


def test_capacity_grows_when_any_step_needed_more(make_trainer, capsys):
    # Not at a step that is logged.
    step = FakeStep(at_6={"num_dropped": 30, "num_isects": 50_000})
    trainer = make_trainer(step, steps=10)
    capacities = []
    trainer._set_room = capacities.append
    trainer.run()
    assert len(capacities) == 1 and capacities[0] >= 50_000
    assert "30 intersections" in capsys.readouterr().err


def test_a_step_without_room_is_refused_and_nothing_is_lost(
    make_trainer, tmp_path, monkeypatch
):
    # At the first step there is nothing to save, after a growth there is.
    monkeypatch.setattr(fitting.memory, "available_bytes", lambda device: 1000)
    with pytest.raises(InputError, match=r"a training step needs .* --capture.width"):
        make_trainer(None).run()
    assert saved_steps(tmp_path) == []
    step = FakeStep(at_6={"num_dropped": 30, "num_isects": 50_000})
    with pytest.raises(InputError, match="a training step needs"):
        make_trainer(step).run()
    # It was seen at the next step that is logged.
    assert saved_steps(tmp_path) == [8]


def test_capacity_of_earlier_runs_is_kept(capture, first_state, tmp_path):
    split = holdout_split(capture, "FREE", "222200037")
    trainer = fitting.Trainer(
        CONFIG, METHOD, capture, split, tmp_path, first_state, max_isects=12_345
    )
    assert trainer.max_isects == 12_345


@pytest.mark.parametrize(
    ("number", "end"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Stopped)],
)
@pytest.mark.usefixtures("own_signals")
def test_a_signal_saves_after_the_step_in_hand(
    make_trainer, tmp_path, capsys, number, end
):
    step = FakeStep(at_11=lambda: signal.raise_signal(number))
    with pytest.raises(KeyboardInterrupt) as raised:
        make_trainer(step).run()
    assert raised.type is end
    assert saved_steps(tmp_path) == [8, 12]
    assert "stopped at step 12" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("own_signals")
def test_second_ctrl_c_acts_at_once(make_trainer, tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    step = FakeStep(at_11=twice)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(step).run()
    assert saved_steps(tmp_path) == [8]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_frames_that_cannot_be_read_do_not_lose_the_training(
    make_trainer, tmp_path, monkeypatch
):
    from npga_jax.data import loader

    load_batch = loader.load_batch
    calls = []

    def fail_later(*args):
        calls.append(args)
        if len(calls) > 11:
            raise InputError("the cache has gone")
        return load_batch(*args)

    monkeypatch.setattr(loader, "load_batch", fail_later)
    with pytest.raises(InputError, match="the cache has gone"):
        make_trainer(FakeStep()).run()
    assert saved_steps(tmp_path) == [8, 11]
    assert checkpoint.latest_step(tmp_path / CHECKPOINTS) == 11


def test_steps_get_batches_that_are_on_the_devices(make_trainer):
    step = FakeStep()
    make_trainer(step).run()
    assert all(isinstance(expr, jax.Array) for expr in step.seen)


def test_resumed_run_sees_the_batches_that_come_next(make_trainer, first_state):
    whole, rest = FakeStep(), FakeStep()
    make_trainer(whole).run()
    make_trainer(rest, first_state._replace(step=np.asarray(12, np.int32))).run()
    assert len(rest.seen) == 8
    np.testing.assert_array_equal(whole.seen[12:], rest.seen)


def test_devices_must_share_the_views_evenly(make_trainer):
    with pytest.raises(InputError, match="pass at most that"):
        make_trainer(FakeStep(), num_devices=99)


def test_nothing_touches_a_state_after_a_bad_step(make_trainer, first_state, tmp_path):
    """Neither the average nor an event, though no line is due for a while."""
    bad = {"at_16": {"is_finite": False, "loss": np.nan}}
    density = DensityConfig(start=0.9, stop=0.9, events=1, views=1)
    trainer = make_trainer(
        CountingStep(**bad), average_from=0.7, log_every=100, density=density
    )

    def never(event):
        raise AssertionError("the cloud was changed after a bad step")

    trainer._change_cloud = never
    with pytest.raises(fitting.NonFiniteError, match="step 16 is not finite"):
        trainer.run()
    template = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), first_state
    )
    replicated = parallel.replicated(parallel.make_mesh(1))
    saved, _ = checkpoint.load_state(tmp_path / CHECKPOINTS, 16, template, replicated)
    assert saved.step == 16 and not saved.halted
    assert weights(saved.params) == 16 and weights(saved.average) == 15.5


def test_event_without_room_looks_again_with_more(
    make_trainer, first_state, tmp_path, capsys
):
    """Nothing is decided on images that lack Gaussians, and it is said."""
    density = DensityConfig(start=0.5, stop=0.5, events=1, views=2, growth=0.1)

    def cloud_after(room):
        trainer = make_trainer(
            None, density=density, max_isects=room, folder=tmp_path / str(room)
        )
        trainer._change_cloud(0)
        return jax.device_get(trainer.state.params.gaussians), trainer.max_isects

    ample, _ = cloud_after(20_000)
    assert "did not fit" not in capsys.readouterr().err
    tight, room = cloud_after(16)
    assert room > 16
    assert "density control" in capsys.readouterr().err
    jax.tree.map(np.testing.assert_array_equal, tight, ample)
