"""Landmarks: triangulated on rigs whose truth is known, and found in an image."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npga_jax.data import NUM_LANDMARKS, decode
from npga_jax.preparation import triangulate, triangulate_face
from npga_jax.tracking import open_detector

SHARED = Path(__file__).resolve().parents[3] / "shared"
MODEL = SHARED / "assets" / "face_landmarker.task"
VIDEO = SHARED / "nersemble/074/sequences/FREE/images/cam_222200037.mp4"
K = np.array([[1500.0, 0, 250], [0, 1500, 380], [0, 0, 1]])


def look_from(angle, height=0.0, distance=1.0):
    """World-to-camera [4, 4] of a camera on a circle that looks at the origin."""
    a = np.radians(angle)
    centre = np.array([distance * np.sin(a), height, distance * np.cos(a)])
    forward = -centre / np.linalg.norm(centre)
    right = np.cross(forward, [0.0, 1, 0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, -rotation @ centre
    return matrix


def rig(angles, highest=0.2):
    heights = np.linspace(-highest, highest, len(angles))
    cameras = np.stack([look_from(a, h) for a, h in zip(angles, heights, strict=True)])
    return np.repeat(K[None], len(angles), axis=0), cameras


def shown(points, Ks, cameras):
    """Pixels [C, P, 2]."""
    seen = (
        np.einsum("cij,pj->cpi", cameras[:, :3, :3], points) + cameras[:, None, :3, 3]
    )
    uvw = np.einsum("cij,cpj->cpi", Ks, seen)
    return uvw[..., :2] / uvw[..., 2:]


def face(rng):
    """Landmarks [478, 3] of a face at the origin that looks along z."""
    points = rng.uniform(-1, 1, (NUM_LANDMARKS, 3)) * [0.06, 0.09, 0.02]
    corners = {10: (0, 9, 0), 152: (0, -9, 0), 234: (-6, 0, -4), 454: (6, 0, -4)}
    for index, place in corners.items():
        points[index] = np.array(place) / 100
    return points


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31), st.integers(5, 9), st.floats(0, 0.6))
def test_outliers_are_told_from_what_cameras_agree_on(seed, num_cameras, noise):
    rng = np.random.default_rng(seed)
    Ks, cameras = rig(np.linspace(-60, 60, num_cameras))
    points = face(rng)[:60]
    pixels = shown(points, Ks, cameras)
    pixels += noise * rng.normal(size=pixels.shape)
    wrong = np.zeros(pixels.shape[:2], bool)
    for column in range(len(points)):
        wrong[
            rng.choice(num_cameras, (num_cameras - 3) // 2, replace=False), column
        ] = 1
    away = rng.uniform(0, 2 * np.pi, pixels.shape[:2])
    away = np.stack([np.cos(away), np.sin(away)], axis=-1)
    pixels += wrong[..., None] * away * rng.uniform(30, 90, pixels.shape[:2])[..., None]
    tolerance = np.full(num_cameras, 5.0)
    found = triangulate(pixels, np.ones_like(wrong), tolerance, Ks, cameras)
    off = np.linalg.norm(found.points - points, axis=1)
    # Now and then an outlier points where the truth is, along an epipolar line.
    right = found.agreeing == (~wrong).sum(axis=0)
    assert right.mean() > 0.9 and (found.agreeing >= 2).all()
    assert np.quantile(off, 0.9) < 1e-5 + 0.003 * noise
    assert off.max() < 1e-5 + 0.01 * noise
    assert found.error.max() < 5 and np.median(found.error) < 1e-3 + 2 * noise


def test_weights_beat_the_worst_camera():
    rng = np.random.default_rng(3)
    Ks, cameras = rig(np.linspace(-50, 50, 8))
    points = face(rng)
    pixels = shown(points, Ks, cameras) + rng.normal(size=(8, NUM_LANDMARKS, 2))
    usable = np.ones(pixels.shape[:2], bool)
    every = triangulate(pixels, usable, np.full(8, 8.0), Ks, cameras)
    pairs = triangulate(
        pixels[[0, 1]], usable[:2], np.full(2, 8.0), Ks[:2], cameras[:2]
    )
    off, off_pair = (np.linalg.norm(f.points - points, axis=1) for f in (every, pairs))
    assert np.median(off) < 0.5 * np.median(off_pair)
    assert (
        0.7 < np.median(every.error) / np.sqrt(2) < 1.1
    )  # RMS of the noise, less 3/16
    assert every.agreeing.min() >= 7


@pytest.mark.parametrize(
    ("angles", "seen"),
    [
        ([-30, 0, 30], [False, False, False]),
        ([-30, 0, 30], [False, True, False]),
        ([0, 1, 2], [True, True, True]),
        ([10], [True]),
    ],
    ids=["nobody", "one camera", "parallel rays", "a rig of one"],
)
def test_what_cannot_be_triangulated_is_zero(angles, seen):
    rng = np.random.default_rng(0)
    Ks, cameras = rig(angles, highest=0)
    pixels = shown(face(rng), Ks, cameras)
    pixels[~np.array(seen)] = np.nan
    found = triangulate_face(pixels, np.array(seen), Ks, cameras)
    for array in found:
        assert np.isfinite(array).all() and not array.any()


def test_a_missing_camera_changes_nothing_but_the_count():
    rng = np.random.default_rng(1)
    Ks, cameras = rig(np.linspace(-40, 40, 5))
    pixels = shown(face(rng), Ks, cameras)
    full = triangulate_face(pixels, np.ones(5, bool), Ks, cameras)
    pixels[2] = np.nan
    less = triangulate_face(pixels, np.arange(5) != 2, Ks, cameras)
    np.testing.assert_allclose(less.points, full.points, atol=1e-6)
    assert set(full.agreeing) == {5} and set(less.agreeing) == {4}


def test_cameras_behind_the_face_give_nothing():
    rng = np.random.default_rng(2)
    Ks, cameras = rig(np.array([-40, -10, 20, 45, 180]))
    points = face(rng)
    # It sees what is right, as a network could not: only its place tells.
    pixels = shown(points, Ks, cameras)
    found = triangulate_face(pixels, np.ones(5, bool), Ks, cameras)
    np.testing.assert_allclose(found.points, points, atol=1e-6)
    assert set(found.agreeing) == {4}


@pytest.mark.skipif(
    importlib.util.find_spec("mediapipe") is None, reason="mediapipe is not installed"
)
@pytest.mark.skipif(
    not (MODEL.is_file() and VIDEO.is_file()),
    reason="the face landmarker or the capture is not in ../shared",
)
def test_mediapipe_finds_a_face_upright_and_nothing_in_noise():
    images = []
    decode(VIDEO, "rgb", 24, images.append)
    image = images[0]
    with open_detector(MODEL) as detector:
        found = detector.find(image)
        assert detector.find(np.full_like(image, 127)) is None
    assert found is not None and found.shape == (NUM_LANDMARKS, 2)
    assert (found > 0.1).all() and (found < 0.9).all()
    right, left, nose, chin = found[[33, 263, 1, 152]]
    assert right[0] < nose[0] < left[0] and max(right[1], left[1]) < nose[1] < chin[1]
