"""`dev/evaluate_preparation.py`: its errors, on things whose errors are known."""

from pathlib import Path

import numpy as np
import pytest

from npga_jax.data import Camera, PointCloud

DEV = Path(__file__).parents[2] / "dev"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(DEV)
    import evaluate_preparation

    return evaluate_preparation


@pytest.fixture
def square(script):
    """A square of 10 cm that looks along +z."""
    steps = np.linspace(-0.05, 0.05, 21)
    x, y = np.meshgrid(steps, steps)
    vertices = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], axis=-1)
    at = np.arange(21 * 21).reshape(21, 21)
    a, b, c, d = at[:-1, :-1], at[:-1, 1:], at[1:, 1:], at[1:, :-1]
    halves = [np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))]
    return script.sample_surface(vertices, np.concatenate(halves))


def test_heights_and_normals_are_measured(script, square):
    rng = np.random.default_rng(0)
    xyz = rng.uniform(-0.045, 0.045, (4000, 3))
    xyz[:, 2] = 0.001
    xyz[:400, 2] = 0.004
    tilt = np.deg2rad(10)
    normals = np.tile([np.sin(tilt), 0, np.cos(tilt)], (4000, 1))
    cloud = PointCloud(xyz, np.zeros_like(xyz), normals)
    every = np.ones(len(square.points), bool)
    found = script.cloud_errors(cloud, np.ones(4000, bool), square, every)
    assert np.median(found["error_mm"]) == pytest.approx(1, abs=0.05)
    assert np.mean(found["error_mm"] > 2) == pytest.approx(0.1, abs=0.01)
    assert np.median(found["normal_degrees"]) == pytest.approx(10, abs=0.1)


def test_points_beyond_the_rim_are_not_judged_and_gaps_are(script, square):
    rng = np.random.default_rng(0)
    xyz = np.zeros((6000, 3))
    xyz[:, :2] = rng.uniform([-0.05, -0.05], [0.0, 0.05], (6000, 2))
    xyz[:1000, 0] -= 0.07  # Beside the square.
    normals = np.tile([0.0, 0, 1], (6000, 1))
    cloud = PointCloud(xyz, np.zeros_like(xyz), normals)
    every = np.ones(len(square.points), bool)
    found = script.cloud_errors(cloud, np.ones(6000, bool), square, every)
    assert found["error_mm"].max() < 0.6
    assert np.mean(found["gap_mm"] < 2) == pytest.approx(0.52, abs=0.03)


def test_what_is_turned_away_is_not_visible(script, square):
    K = np.array([[500.0, 0, 50], [0, 500, 50], [0, 0, 1]], np.float32)
    front = np.diag([1.0, -1, -1, 1]).astype(np.float32)
    front[2, 3] = 1
    behind = np.eye(4, dtype=np.float32)
    behind[2, 3] = 1
    labels = np.full((100, 100), 2)
    views = {
        name: (Camera(K, matrix, 100, 100, name), labels)
        for name, matrix in (("front", front), ("behind", behind))
    }
    sees = [views["front"], views["front"]]
    assert script.visible(square, sees).mean() > 0.99
    assert not script.visible(square, [views["front"], views["behind"]]).any()
    hair = np.full((100, 100), 14)
    assert not script.visible(square, [(c, hair) for c, _ in sees]).any()


def test_mattes_are_judged_everywhere_and_around_hair(script):
    true = np.full((80, 80), 1, np.uint8)
    true[:, 30:] = 254
    true[:, 30:32] = 128
    found = np.where(true > 200, 255, 0).astype(np.uint8)
    labels = np.where(true > 1, 14, 0)
    whole, band = script.matte_errors(found, true, labels)
    assert whole == pytest.approx(0.5 * 2 / 80, abs=1e-3)
    assert band == pytest.approx(0.5 * 2 / 20, rel=0.1)
    _, none = script.matte_errors(found, true, np.zeros_like(labels))
    assert np.isnan(none)


def test_label_maps_are_judged_by_class(script):
    true = np.zeros((10, 10), np.uint8)
    true[:, :4], true[:, 4:6], true[:, 6:] = 2, 8, 14
    found = true.copy()
    found[:5, 4:6] = 9  # The other eye counts as an eye.
    found[:, 6] = 4  # An ear is face.
    result = script.label_summary([script.label_counts(found, true)] * 2)
    assert result["label_maps"] == 2
    assert result["iou_eyes"] == 1 and result["iou_mouth"] == 0
    assert result["iou_face"] == pytest.approx(40 / 50)
    assert result["iou_hair"] == pytest.approx(30 / 40)
    assert script.label_summary([]) == {}
