"""One camera: first poses, and rays."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from npga_jax.nphm import METRES_PER_UNIT
from npga_jax.tracking.landmark_term import packaged_table
from npga_jax.tracking.monocular import (
    Lens,
    pose_by_landmarks,
    ray_sightings,
    usual_lens,
)


def seen(turn, shift, lens: Lens):
    table = packaged_table()
    head = table.points + table.offsets
    # Faces look at the camera, whose axes are x right, y down, z away.
    rotation = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    rotation = rotation @ np.diag([1.0, -1, -1])
    points = METRES_PER_UNIT * head @ rotation.T + shift
    pixels = points @ lens.K.T
    return head, rotation, pixels[:, :2] / pixels[:, 2:]


@pytest.mark.parametrize("turn", [(0, 0, 0), (10, 35, -15), (-20, -50, 30)])
@pytest.mark.parametrize("distance", [0.35, 2.0])
def test_pose_is_found_from_landmarks(turn, distance):
    lens = usual_lens(640, 480)
    shift = np.array([0.05, -0.04, distance])
    head, rotation, pixels = seen(turn, shift, lens)
    found = pose_by_landmarks(head, pixels, lens)
    np.testing.assert_allclose(found.rotation, rotation, atol=1e-5)
    np.testing.assert_allclose(found.translation, shift, atol=1e-5)
    assert found.scale == 1.0


def test_noise_of_a_pixel_moves_the_pose_by_little():
    lens = usual_lens(640, 480)
    shift = np.array([0.0, 0.0, 0.6])
    head, rotation, pixels = seen((5, 20, 0), shift, lens)
    pixels = pixels + np.random.default_rng(0).normal(size=pixels.shape)
    found = pose_by_landmarks(head, pixels, lens)
    off = Rotation.from_matrix(found.rotation @ rotation.T).magnitude()
    assert np.degrees(off) < 1.0


def test_rays_pass_through_what_is_seen():
    lens = usual_lens(320, 240)
    shift = np.array([0.02, 0.01, 0.5])
    head, _, pixels = seen((0, 15, 5), shift, lens)
    pose = pose_by_landmarks(head, pixels, lens)
    rays = ray_sightings([pose], pixels[None], np.ones(len(head)), lens)
    apart = np.einsum("rij,rj->ri", rays.across[0], head - rays.points[0])
    assert np.abs(apart).max() < 1e-4
    # Along the ray, a point may lie anywhere; across it, nowhere else.
    toward = head - rays.points[0]
    nearer = np.einsum("rij,rj->ri", rays.across[0], 0.8 * toward)
    assert np.abs(nearer).max() < 1e-4
    beside = apart + np.einsum("rij,j->ri", rays.across[0], np.array([0.05, 0.0, 0.0]))
    assert np.linalg.norm(beside, axis=1).min() > 0.04
