"""The first cloud: skin through the head model, eyes and mouth by their bones."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from npga_jax.avatar.bones import JAW, SKULL
from npga_jax.avatar.detail import wiener_filter
from npga_jax.avatar.forward import jaw_motion
from npga_jax.avatar.method import init_params
from npga_jax.avatar.settings import DetailConfig, ForwardConfig, GaussianConfig
from npga_jax.core.errors import InputError
from npga_jax.data.capture import Driving, PointCloud, Timestep
from npga_jax.data.segmentation import EYES, FACE, INNER_MOUTH
from npga_jax.data.splits import Views
from npga_jax.distillation.distill import initial_forward
from npga_jax.training import initial_points as initialization
from npga_jax.training import mouth
from npga_jax.training.building import default_method
from npga_jax.training.mouth import bind_mouth
from npga_jax.training.settings import TrainConfig
from npga_jax.training.stages import run_optimizer
from npga_jax.training.start import code_space, initial_state, state_template
from npga_jax.training.state import init_train_state
from tests import small_scene
from tests.distillation.ball_person import make_person
from tests.small_head_model import BALL
from tests.small_scene import ball_points

NUM_SKIN, NUM_EYES, NUM_MOUTH, FRAMES = 400, 12, 15, 3
LABELS = np.repeat([FACE, EYES[0], INNER_MOUTH], [NUM_SKIN, NUM_EYES, NUM_MOUTH])
_rng = np.random.default_rng(0)
EYE_POINTS = _rng.uniform([0.02, 0.0, 0.08], [0.03, 0.01, 0.09], (NUM_EYES, 3))
MOUTH_POINTS = _rng.uniform([-0.01, -0.03, 0.07], [0.01, -0.02, 0.08], (NUM_MOUTH, 3))
NAMES = tuple(f"code_{i}" for i in range(BALL.lat_dim_exp))
TRAIN = [Views(Timestep(i, "EXP", i), ("a",)) for i in range(FRAMES)]


def make_capture():
    """The same ball, eyes and mouth in every frame, with a code of each frame's own."""
    chin = _rng.uniform([-0.015, -0.06, 0.06], [0.015, -0.045, 0.09], (100, 3))
    skin = np.concatenate([ball_points(NUM_SKIN - 100), chin])
    xyz = np.concatenate([skin, EYE_POINTS, MOUTH_POINTS])
    rgb = np.full(xyz.shape, 0.5, np.float32)
    codes = _rng.normal(size=(FRAMES, BALL.lat_dim_exp)).astype(np.float32)
    return types.SimpleNamespace(
        subject="074",
        expr_dim=BALL.lat_dim_exp,
        expr_names=NAMES,
        points=lambda t: PointCloud(xyz.astype(np.float32), rgb, None),
        driving=lambda t: Driving(codes[t.index], np.eye(4, dtype=np.float32)),
    )


def make_config(**gaussians) -> TrainConfig:
    return TrainConfig(
        gaussians=GaussianConfig(
            **{"capacity": 4000, "init_frames": 1, "expressive_frames": 1} | gaussians
        ),
        forward=ForwardConfig(
            source="distilled", hidden=16, layers=2, octaves=2, steps=20
        ),
    )


def first_state(cfg, capture, person):
    """The state before the first step, with the method of the settings."""
    return initial_state(cfg, default_method(cfg), capture, TRAIN, person)


def test_f_of_a_head_model_is_not_started_without_one():
    capture = make_capture()
    capture.driving_model = "blendshapes"
    with pytest.raises(InputError, match=r"have none.*--forward\.source none"):
        first_state(make_config(), capture, None)


@pytest.fixture(scope="module")
def person():
    return make_person()


@pytest.fixture
def by_place(monkeypatch):
    """Labels that are known, and an F that is not distilled."""

    def moving(person, codes, *, num_features, options, cache_dir):
        params = initial_forward(
            codes.mean(axis=0),
            person.exp_std,
            num_features=num_features,
            options=options,
        )
        return params | {"out_w": 0.1 + params["out_w"]}

    monkeypatch.setattr("npga_jax.training.building.distilled_forward", moving)

    def votes(capture, timestep, cloud, cameras):
        assert tuple(cameras) == TRAIN[0].cameras, "held-out cameras have no say"
        return LABELS

    for module in (mouth, initialization):
        monkeypatch.setattr(module, "vote_labels", votes)


def test_an_f_that_could_not_be_made_is_refused():
    """And not left as it starts, which moves nothing, without a word."""
    capture = make_capture()
    capture.driving_model = "test"
    method = default_method(small_scene.CONFIG)
    own = method.replace(forward=method.forward.replace(fit=lambda *_: {}))
    with pytest.raises(InputError, match=r"Forward\.fit.*074, of 'test', have none"):
        initial_state(small_scene.CONFIG, own, capture, TRAIN, None)


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_detail_network_hears_what_training_codes_vary_along(person, by_place, noise):
    capture, detail = make_capture(), DetailConfig(tracking_noise=noise)
    cfg = dataclasses.replace(make_config(), detail=detail)
    state = first_state(cfg, capture, person)
    codes = np.stack([capture.driving(v.timestep).expr for v in TRAIN])
    code_filter = np.asarray(state.params.detail["code_filter"])
    expected = wiener_filter(codes / person.exp_std, noise)
    np.testing.assert_allclose(code_filter, expected, atol=1e-6)
    # Three frames cannot vary in four directions.
    strengths = np.linalg.eigvalsh(code_filter)
    assert (strengths[0] < 1e-5) == (noise > 0)
    assert strengths[-1] == pytest.approx(1, abs=0.3)


def test_bones_carry_what_label_maps_say(person, by_place):
    cfg = make_config()
    state = first_state(cfg, make_capture(), person)
    bindings = np.asarray(state.params.gaussians.bindings)
    alive = np.asarray(state.alive)
    # Two clouds have eyes; mouths are taken from all frames.
    bound = bindings.sum(axis=-1) == 1
    means = np.asarray(state.params.gaussians.means)
    eyes = bound & (means[:, 1] > -0.015)
    assert eyes.sum() == 2 * NUM_EYES and (bindings[eyes, SKULL] == 1).all()
    assert (bound & ~eyes).sum() == FRAMES * NUM_MOUTH
    assert np.abs(bindings[~alive]).max() == 0
    nearest = np.linalg.norm(means[eyes][:, None] - EYE_POINTS, axis=-1).min(axis=1)
    assert nearest.max() < 1e-6
    assert np.abs(np.asarray(state.params.forward["chin"])).max() > 0.05
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), state.params)
    template = state_template(cfg, default_method(cfg), NAMES).params
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), template)


def test_without_bones_all_is_skin(person, by_place):
    cfg = make_config(bones=False)
    state = first_state(cfg, make_capture(), person)
    assert np.abs(np.asarray(state.params.gaussians.bindings)).max() == 0
    assert int(state.alive.sum()) > 2 * (NUM_SKIN + NUM_EYES)


def test_a_mouth_without_a_chin_is_taken_for_skin(person, by_place, monkeypatch):
    monkeypatch.setattr("npga_jax.training.start.chin_points", lambda *_, **__: None)
    state = first_state(make_config(), make_capture(), person)
    bindings = np.asarray(state.params.gaussians.bindings)
    assert bindings[:, JAW].sum() == 0 and bindings[:, SKULL].sum() == 2 * NUM_EYES
    np.testing.assert_array_equal(state.params.forward["chin"], 0)


def test_each_mouth_is_closed_by_the_code_of_its_own_frame(
    person, by_place, monkeypatch
):
    given = []

    def keep(seen, rotations, translations):
        given.extend((rotations, translations))
        return bind_mouth(seen, rotations, translations)

    monkeypatch.setattr("npga_jax.training.start.bind_mouth", keep)
    capture, cfg = make_capture(), make_config()
    coarse = first_state(cfg, capture, person).params.forward
    for views, *found in zip(TRAIN, *given, strict=True):
        code = capture.driving(views.timestep).expr
        for a, b in zip(found, jaw_motion(coarse, code, octaves=2), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    assert np.abs(np.diff(given[1], axis=0)).max() > 1e-4


def test_without_label_maps_all_is_skin(person, by_place, monkeypatch):
    for module in (mouth, initialization):
        monkeypatch.setattr(module, "vote_labels", lambda *_: None)
    state = first_state(make_config(), make_capture(), person)
    assert np.abs(np.asarray(state.params.gaussians.bindings)).max() == 0
    np.testing.assert_array_equal(state.params.forward["chin"], 0)


def test_more_mouth_than_slots_leaves_most_of_them_to_the_skin(person, by_place):
    cfg = make_config(capacity=40, init_share=0.5)
    state = first_state(cfg, make_capture(), person)
    means = np.asarray(state.params.gaussians.means)[np.asarray(state.alive)]
    places = np.linalg.norm(means[:, None] - MOUTH_POINTS, axis=-1).min(axis=1)
    assert len(means) == 20 and (places < 1e-6).sum() == 2


def test_slots_are_shared_by_skin_and_mouth(person, by_place):
    cfg = make_config(capacity=500, init_share=0.5)
    state = first_state(cfg, make_capture(), person)
    assert int(state.alive.sum()) == 250
    bound = np.asarray(state.params.gaussians.bindings).sum(axis=-1)
    assert bound.sum() >= 25  # A tenth of them are the mouth's.


@pytest.mark.parametrize("scale", [2.0**-7, 2.0**7])
def test_codes_of_any_scale_train_alike(scale):
    """Units come from the training frames, for codes of trackers that say nothing.

    Powers of two are exact: nothing but the unit could make a difference.
    """
    codes = np.stack([b.expr for b in small_scene.make_batches()])

    def losses_of(factor):
        space = code_space(("a", "b", "c"), factor * codes)
        params, alive = small_scene.make_params()
        cfg, method = small_scene.CONFIG, small_scene.METHOD.replace(code_noise=0.1)
        params = init_params(method, params.gaussians, space, jax.random.key(1))
        state = init_train_state(params, alive, run_optimizer(cfg, method))
        step = jax.jit(small_scene.make_step(method))
        values = []
        for batch in 2 * small_scene.make_batches():
            batch = batch._replace(expr=np.float32(factor) * batch.expr)
            state, metrics = step(state, batch)
            values.append(float(metrics["loss"]))
        return values

    usual = losses_of(1.0)
    assert usual[-1] < usual[0]
    np.testing.assert_allclose(losses_of(scale), usual, rtol=1e-6)


def test_unit_of_a_component_that_hardly_varies_is_no_less_than_a_tenth():
    codes = np.array([[3.0, 0.0, 1e-9], [-1.0, 0.0, 0.0]], np.float32)
    space = code_space(("a", "b", "c"), codes)
    typical = np.sqrt(np.mean(codes.astype(np.float64) ** 2))
    np.testing.assert_allclose(
        space.std, [np.sqrt(5.0), 0.1 * typical, 0.1 * typical], rtol=1e-6
    )
    nothing = code_space(("a",), np.zeros((2, 1), np.float32))
    np.testing.assert_array_equal(nothing.std, 1.0)
