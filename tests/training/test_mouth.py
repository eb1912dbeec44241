"""Points of mouths: which bone carries them, and where they are at rest."""

import types

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from npga_jax.avatar.bones import JAW, SKULL
from npga_jax.avatar.forward import NUM_CHIN
from npga_jax.data.capture import Driving, PointCloud, Timestep
from npga_jax.data.segmentation import EYES, FACE, INNER_MOUTH
from npga_jax.training import initial_points as initialization
from npga_jax.training import mouth

_rng = np.random.default_rng(0)
UPPER = _rng.uniform([-0.02, -0.04, 0.02], [0.02, -0.035, 0.04], (25, 3))
LOWER = _rng.uniform([-0.02, -0.05, 0.02], [0.02, -0.045, 0.04], (25, 3))
ANGLES = (0.05, 0.12, 0.2, 0.3)
JAWS = [Rotation.from_rotvec([a, 0, 0]).as_matrix() for a in ANGLES]
SHIFTS = [np.array([0, -0.02 * a, 0]) for a in ANGLES]
TIMESTEPS = tuple(Timestep(i, "EXP", i) for i in range(len(ANGLES)))
WHITE, PINK = np.full(3, 0.9), np.array([0.8, 0.4, 0.4])


def open_mouths():
    """The same teeth in four frames; each frame lacks some of the points."""
    means, rgb, rows = [], [], []
    for row, (turn, shift) in enumerate(zip(JAWS, SHIFTS, strict=True)):
        kept = _rng.uniform(size=25) < 0.8
        means += [UPPER[kept], LOWER[kept] @ turn.T + shift]
        rgb += [np.tile(WHITE, (kept.sum(), 1)), np.tile(PINK, (kept.sum(), 1))]
        rows += [np.full(2 * kept.sum(), row)]
    return mouth.MouthPoints(*(np.concatenate(x) for x in (means, rgb, rows)))


def test_each_tooth_goes_with_its_bone_and_back_to_rest():
    seen = open_mouths()
    found = mouth.bind_mouth(seen, np.array(JAWS), np.array(SHIFTS))
    is_lower = seen.rgb[:, 1] < 0.5
    assert np.mean(found.bindings[is_lower, JAW]) > 0.95
    assert np.mean(found.bindings[~is_lower, SKULL]) > 0.95
    np.testing.assert_array_equal(found.bindings.sum(axis=-1), 1)
    lower = found.means[found.bindings[:, JAW] > 0]
    nearest = np.linalg.norm(lower[:, None] - LOWER, axis=-1).min(axis=1)
    assert np.quantile(nearest, 0.95) < 1e-6
    np.testing.assert_allclose(found.rgb, seen.rgb, atol=1e-6)
    assert np.all(np.isfinite(found.spacing)) and found.hyper.shape[1] == 0


def test_a_jaw_that_stays_leaves_all_to_the_skull():
    seen = open_mouths()
    still = np.tile(np.eye(3), (len(ANGLES), 1, 1)), np.zeros((len(ANGLES), 3))
    found = mouth.bind_mouth(seen, *still)
    np.testing.assert_array_equal(found.bindings[:, SKULL], 1)
    np.testing.assert_allclose(found.means, seen.means, atol=1e-6)


def test_chin_is_skin_below_the_lips_and_in_front():
    seen = open_mouths()
    skin = _rng.uniform([-0.1, -0.2, -0.1], [0.1, 0.1, 0.1], (20_000, 3))
    chin = mouth.chin_points(skin, seen, seed=0)
    assert chin.shape == (NUM_CHIN, 3)
    assert len(np.unique(chin, axis=0)) == NUM_CHIN
    assert chin[:, 1].max() < -0.045 and chin[:, 1].min() > -0.1
    assert np.abs(chin[:, 0]).max() < 0.03 and chin[:, 2].min() > 0
    np.testing.assert_array_equal(chin, mouth.chin_points(skin, seen, seed=0))


def test_no_chin_with_too_little_skin():
    seen = open_mouths()
    skin = _rng.uniform(-0.1, 0.1, (20_000, 3))
    assert mouth.chin_points(skin[:100], seen, seed=0) is None


@pytest.fixture
def labelled(monkeypatch):
    """Four frames of points whose labels are known; the last has no cloud."""
    labels = np.repeat([FACE, INNER_MOUTH, EYES[0], EYES[1]], 10)
    xyz = _rng.uniform(-0.1, 0.1, (40, 3)).astype(np.float32)
    cloud = PointCloud(xyz, np.tile(np.linspace(0, 1, 40)[:, None], (1, 3)), None)
    pose = np.eye(4, dtype=np.float32)
    capture = types.SimpleNamespace(
        subject="074",
        points=lambda t: None if t.index == 3 else cloud,
        driving=lambda t: Driving(np.full(2, t.index, np.float32), pose),
    )
    for module in (mouth, initialization):
        monkeypatch.setattr(module, "vote_labels", lambda *_: labels)
    return capture, xyz, labels


def test_points_of_mouths_are_those_that_label_maps_show(labelled):
    capture, xyz, labels = labelled
    options = {"cameras": ("a", "b"), "max_points": 99, "seed": 0}
    seen = mouth.mouth_points(capture, TIMESTEPS, **options)
    np.testing.assert_allclose(seen.means[:10], xyz[labels == INNER_MOUTH], atol=1e-7)
    np.testing.assert_array_equal(np.bincount(seen.rows), [10, 10, 10])
    few = mouth.mouth_points(capture, TIMESTEPS, **options | {"max_points": 7})
    assert [len(x) for x in few] == [7, 7, 7]
    places = {tuple(x) for x in seen.means}
    assert all(tuple(x) in places for x in few.means)


def test_skin_is_taken_back_and_eyes_stay_with_the_skull(labelled):
    capture, xyz, labels = labelled
    points = initialization.gather_points(
        capture,
        TIMESTEPS[:1],
        max_points=100,
        seed=0,
        to_canonical=lambda p, _: (p + 1.0, np.ones((len(p), 2))),
        on_skull=EYES,
        left_out=(INNER_MOUTH,),
    )
    is_eye = np.isin(labels, EYES)[labels != INNER_MOUTH]
    here = xyz[labels != INNER_MOUTH]
    np.testing.assert_array_equal(points.bindings[:, SKULL], is_eye)
    np.testing.assert_array_equal(points.bindings[:, JAW], 0)
    np.testing.assert_allclose(points.means, here + (~is_eye)[:, None], atol=1e-6)


def test_captures_without_label_maps_have_skin_alone(labelled, monkeypatch):
    capture, xyz, _ = labelled
    for module in (mouth, initialization):
        monkeypatch.setattr(module, "vote_labels", lambda *_: None)
    seen = mouth.mouth_points(capture, TIMESTEPS, cameras=("a",), max_points=99, seed=0)
    assert not len(seen.means)
    options = {"on_skull": EYES, "left_out": (INNER_MOUTH,)}
    points = initialization.gather_points(
        capture, TIMESTEPS[:1], max_points=100, seed=0, **options
    )
    np.testing.assert_allclose(points.means, xyz, atol=1e-7)
    np.testing.assert_array_equal(points.bindings, 0)


def test_joined_points_keep_their_own_spacing():
    seen = open_mouths()
    still = np.tile(np.eye(3), (len(ANGLES), 1, 1)), np.zeros((len(ANGLES), 3))
    inside = mouth.bind_mouth(seen, *still)
    skin = initialization.as_initial(UPPER, UPPER, np.ones((25, 2)), np.zeros((25, 2)))
    joined = initialization.join(skin, inside)
    np.testing.assert_array_equal(joined.spacing[25:], inside.spacing)
    np.testing.assert_array_equal(joined.hyper[:25], 1)
    np.testing.assert_array_equal(joined.hyper[25:], 0)
    assert all(x.dtype == np.float32 for x in joined)
