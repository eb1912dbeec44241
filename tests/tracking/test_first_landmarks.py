"""First poses from landmarks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from npga_jax.data import NUM_LANDMARKS, Landmarks, PointCloud
from npga_jax.nphm.config import METRES_PER_UNIT
from npga_jax.tracking import gathering
from npga_jax.tracking.alignment import Similarity
from npga_jax.tracking.first_landmarks import ON_MEAN_HEAD, pose_of_landmarks
from npga_jax.tracking.options import TrackingOptions
from npga_jax.tracking.template import packaged_template
from tests.small_head_model import make_model
from tests.tracking.made_up_clouds import MadeUpClouds

PLACES = np.array(list(ON_MEAN_HEAD.values()))


def placed(pose, size=1.0, known=tuple(ON_MEAN_HEAD), noise=0.0):
    """Landmarks of the mean head in the world."""
    rng = np.random.default_rng(0)
    points = np.zeros((NUM_LANDMARKS, 3), np.float32)
    agreeing = np.zeros(NUM_LANDMARKS, np.uint8)
    for index in known:
        local = size * METRES_PER_UNIT * np.array(ON_MEAN_HEAD[index])
        points[index] = pose.rotation @ local + pose.translation
        points[index] += noise * rng.normal(size=3)
        agreeing[index] = 5
    return Landmarks(points, agreeing, np.zeros(NUM_LANDMARKS, np.float32))


def test_the_table_lies_on_the_mean_head():
    template = packaged_template()
    distance, _ = KDTree(template.vertices).query(PLACES)
    assert (METRES_PER_UNIT * distance).max() < 0.005
    eyes = [template.vertices[rim] for rim in template.rims[:2]]
    for rim, corners in zip(eyes, ((33, 133), (263, 362)), strict=True):
        ends = rim[[np.argmax(np.abs(rim[:, 0])), np.argmin(np.abs(rim[:, 0]))]]
        off = ends - np.array([ON_MEAN_HEAD[i] for i in corners])
        assert METRES_PER_UNIT * np.linalg.norm(off, axis=1).max() < 0.005
    mirrored = {(-x, y, z) for x, y, z in ON_MEAN_HEAD.values()}
    assert mirrored == set(ON_MEAN_HEAD.values())


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31))
def test_a_pose_is_found_from_any_side(seed):
    rng = np.random.default_rng(seed)
    pose = Similarity(Rotation.random(rng=rng).as_matrix(), rng.normal(size=3), 1.0)
    found = pose_of_landmarks(placed(pose, size=1.08, noise=0.001))
    turned = Rotation.from_matrix(found.rotation.T @ pose.rotation).magnitude()
    assert np.degrees(turned) < 2 and found.scale == 1.0
    shift = found.rotation @ PLACES.mean(axis=0) - pose.rotation @ PLACES.mean(axis=0)
    moved = found.translation + METRES_PER_UNIT * shift - pose.translation
    assert np.linalg.norm(moved) < 0.006


@pytest.mark.parametrize(
    "landmarks",
    [
        placed(Similarity(np.eye(3), np.zeros(3), 1.0), known=(33, 133, 1, 61, 291)),
        placed(Similarity(np.eye(3), np.zeros(3), 1.0), size=3),
        placed(Similarity(np.eye(3), np.zeros(3), 1.0), noise=0.2),
    ],
    ids=["too few", "a giant", "no face"],
)
def test_what_is_no_face_gives_no_pose(landmarks):
    assert pose_of_landmarks(landmarks) is None


def test_a_head_that_no_camera_faces_is_found_by_its_landmarks(monkeypatch):
    template = packaged_template()
    monkeypatch.setattr(gathering, "head_mesh", lambda *_, **__: template)
    turn = Rotation.from_euler("yx", [130, 10], degrees=True).as_matrix()
    pose = Similarity(turn, np.array([0.1, -0.2, 0.05]), 1.0)
    xyz = METRES_PER_UNIT * template.vertices @ turn.T + pose.translation
    cloud = PointCloud(np.float32(xyz), np.full_like(xyz, 0.5), None)
    capture = MadeUpClouds(num_frames=1, num_points=0)
    capture.points = lambda _: cloud
    capture.has_driving = lambda _: False
    off = {}
    for name, landmarks in (("guessed", None), ("seen", placed(pose, noise=0.002))):
        capture.landmarks = lambda _, found=landmarks: found
        options = TrackingOptions(points=500)
        frames, _ = gathering.gather_frames(capture, make_model(), ("SEQ",), options)
        between = frames[0].pose.rotation.T @ turn
        off[name] = np.degrees(Rotation.from_matrix(between).magnitude())
    assert off["seen"] < 3 < 30 < off["guessed"]
