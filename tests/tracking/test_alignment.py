"""First poses, and which points of a cloud are skin."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from npga_jax.data.capture import Camera, PointCloud, Timestep
from npga_jax.data.point_labels import project, visible_points, vote_labels
from npga_jax.nphm.config import METRES_PER_UNIT, MILLIMETRES_PER_UNIT
from npga_jax.tracking.alignment import (
    Similarity,
    align_head,
    facing_cameras,
    refined,
    similarity_from_matrix,
)
from npga_jax.tracking.clouds import SkinPoints, drawn, padded, skin_points
from tests.small_scans import egg


def test_similarities_and_matrices_are_the_same_maps():
    rotation = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()
    pose = Similarity(rotation, np.array([0.1, 0.2, 0.3]), 1.3)
    back = similarity_from_matrix(pose.matrix())
    np.testing.assert_allclose(back.matrix(), pose.matrix(), atol=1e-12)
    points = np.random.default_rng(0).normal(size=(6, 3))
    homogeneous = np.concatenate(
        [pose.to_head(points) * METRES_PER_UNIT, np.ones((6, 1))], 1
    )
    np.testing.assert_allclose((homogeneous @ pose.matrix().T)[:, :3], points)


def test_a_residual_moves_the_pose_as_it_moves_the_points():
    rng = np.random.default_rng(1)
    pose = Similarity(Rotation.random(rng=rng).as_matrix(), rng.normal(size=3), 0.9)
    residual = np.array([0.2, -0.1, 0.3, 0.05, 0.1, -0.02])
    points = rng.normal(size=(5, 3))
    turn = Rotation.from_rotvec(residual[:3]).as_matrix()
    expected = pose.to_head(points) @ turn.T + residual[3:]
    np.testing.assert_allclose(refined(pose, residual).to_head(points), expected)


def test_a_turned_and_moved_head_is_found_from_a_poor_guess():
    vertices, _ = egg(32)
    front = vertices[vertices[:, 2] > 0.02].astype(float)
    rotation = Rotation.from_euler("yx", [35, 10], degrees=True).as_matrix()
    truth = Similarity(rotation, np.array([0.5, -0.3, 1.2]), 1.0)
    matrix = truth.matrix()
    points = front * METRES_PER_UNIT @ matrix[:3, :3].T + matrix[:3, 3]
    points += np.random.default_rng(0).normal(size=points.shape) * 3e-4
    guess = Similarity(np.eye(3), np.zeros(3), 1.0)
    pose, error = align_head(points, vertices.astype(float), [guess])
    assert error * MILLIMETRES_PER_UNIT < 1.5
    gap = np.linalg.norm(pose.to_head(points) - truth.to_head(points), axis=-1)
    # An egg may turn a little about its axis.
    assert gap.max() * MILLIMETRES_PER_UNIT < 12


def look_at(position: np.ndarray) -> np.ndarray:
    """World-to-camera of a camera that looks at the origin, image upright for +y."""
    forward = -position / np.linalg.norm(position)
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = -rotation @ position
    return matrix


def test_a_head_faces_the_middle_of_its_cameras():
    cameras = [look_at(np.array([x, 0.1, 1.0])) for x in (-0.5, 0.0, 0.5)]
    pose = facing_cameras(np.zeros((5, 3)), cameras)
    np.testing.assert_allclose(pose.rotation @ [0, 0, 1], [0, 0.0, 1], atol=0.1)
    np.testing.assert_allclose(pose.rotation @ [0, 1, 0], [0, 1, 0], atol=0.1)
    np.testing.assert_allclose(np.linalg.det(pose.rotation), 1)


class OneCamera:
    """A capture of two parallel walls; the left half of the image is hair."""

    cameras = ("front",)

    def __init__(self, labels: np.ndarray | None):
        K = np.array([[100.0, 0, 50], [0, 100, 50], [0, 0, 1]])
        world2cam = look_at(np.array([0.0, 0.0, 1.0]))
        self._camera = Camera(K, world2cam, 100, 100, "front")
        self._labels = labels
        rng = np.random.default_rng(0)
        near = np.concatenate(
            [rng.uniform(-0.3, 0.3, (2000, 2)), np.zeros((2000, 1))], 1
        )
        far = near[:200] - [0, 0, 0.2]
        xyz = np.concatenate([near, far]).astype(np.float32)
        normals = np.tile(np.array([0, 0, 1], np.float32), (len(xyz), 1))
        self.cloud = PointCloud(xyz, xyz * 0, normals)

    def camera(self, timestep, camera_id):
        return self._camera

    def labels(self, timestep, camera_id):
        return self._labels

    def points(self, timestep):
        return self.cloud


STEP = Timestep(0, "SEQ", 0)


@pytest.fixture
def labels():
    out = np.full((50, 50), 2, np.uint8)
    out[:, :25] = 14
    return out


def test_hidden_and_turned_points_are_not_seen(labels):
    capture = OneCamera(labels)
    camera, cloud = capture.camera(STEP, "front"), capture.cloud
    visible, pixels = visible_points(camera, cloud.xyz, cloud.normals)
    assert visible[:2000].mean() > 0.99 and visible[2000:].mean() < 0.1
    assert pixels[visible].min() >= 0 and pixels[visible].max() < 100
    assert not visible_points(camera, cloud.xyz, -cloud.normals)[0].any()
    behind = cloud.xyz + np.float32([0, 0, 3])
    assert not visible_points(camera, behind, None)[0].any()
    centre, depth = project(camera, np.zeros((1, 3)))
    np.testing.assert_allclose(centre, [[50, 50]])
    np.testing.assert_allclose(depth, [1])


def test_labels_decide_what_is_skin(labels):
    capture = OneCamera(labels)
    votes = vote_labels(capture, STEP, capture.cloud)
    seen = votes[:2000] >= 0
    is_left = capture.cloud.xyz[:2000, 0] < -0.02
    is_right = capture.cloud.xyz[:2000, 0] > 0.02
    assert (votes[:2000][seen & is_left] == 14).all()
    assert (votes[:2000][seen & is_right] == 2).all()
    skin = skin_points(capture, STEP)
    assert skin.xyz[:, 0].min() > -0.02 and 800 < len(skin.xyz) < 1200


def test_without_maps_all_points_are_kept_and_without_a_cloud_none():
    capture = OneCamera(None)
    assert len(skin_points(capture, STEP).xyz) == 2200
    capture.cloud = None
    assert skin_points(capture, STEP) is None


def test_clouds_are_drawn_or_padded_to_size():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(10, 3))
    skin = SkinPoints(points, -points, points + 1, True)
    few, ups, colors, _ = drawn(skin, 4, rng)
    assert len(np.unique(few, axis=0)) == 4
    assert all((np.abs(points - p).max(1) < 1e-6).any() for p in few)
    np.testing.assert_array_equal(few, -ups)
    np.testing.assert_array_equal(few + 1, colors)
    many, normals, weights = padded((points, points), 16)
    np.testing.assert_allclose(many[:10], points, rtol=1e-6)
    np.testing.assert_array_equal(weights, [1] * 10 + [0] * 6)
    assert normals.shape == (16, 3)
