"""Where eyes are seen tells how far a head has slipped."""

import numpy as np
import pytest

from npga_jax.data import Camera, segmentation
from npga_jax.io import visible_faces
from npga_jax.preparation.labels import Tint, hairline_of, place_head
from npga_jax.preparation.slip import Sight, find_slip, shifted
from npga_jax.tracking import packaged_template

SKIN = np.array([0.75, 0.58, 0.5])
TINT = Tint(SKIN, np.eye(3) / 0.03**2, float(-6 * np.log(0.03)))
WIDTH, HEIGHT = 300, 400
POSE = np.eye(4)
POSE[:3, :3] = 1.1 * np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # Looks along x.
POSE[:3, 3] = [0.2, -0.1, 0.3]


def camera_at(azimuth: float) -> Camera:
    """Looks at the head from a metre away, from its left by an angle."""
    a = np.deg2rad(azimuth)
    turn = POSE[:3, :3] / 1.1
    back = turn @ np.array([np.sin(a), 0.0, np.cos(a)])
    down = np.array([0.0, -1.0, 0.0])
    rotation = np.stack([np.cross(down, -back), down, -back])
    world2cam = np.eye(4, dtype=np.float32)
    world2cam[:3, :3] = rotation
    world2cam[:3, 3] = np.array([0, 0, 1.0]) - rotation @ POSE[:3, 3]
    K = np.array([[900, 0, WIDTH / 2], [0, 900, HEIGHT / 2], [0, 0, 1]], np.float32)
    return Camera(K, world2cam, WIDTH, HEIGHT, "any")


@pytest.fixture(scope="module")
def head():
    template = packaged_template()
    hairline = hairline_of(template)
    return place_head(template, hairline, template.vertices, POSE)


def image_of(head, camera, rng):
    """Skin, with white and dark eyes where the head has them, and noise."""
    face, _ = visible_faces(
        head.vertices, head.faces, viewmat=camera.world2cam.astype(float), K=camera.K,
        width=WIDTH, height=HEIGHT,
    )  # fmt: skip
    is_eye = (face >= 0) & np.isin(head.labels[face], segmentation.EYES)
    dark = rng.random(is_eye.shape) < 0.4
    colors = np.where(is_eye[..., None], np.where(dark, 0.15, 0.9)[..., None], SKIN)
    colors = colors + rng.normal(0, 0.03, colors.shape)
    return np.uint8(255 * np.clip(colors, 0, 1))


@pytest.mark.parametrize("slip", [(0.002, -0.0015), (-0.003, 0.001), (0.0, 0.0)])
def test_a_slip_is_found_and_undone(head, slip):
    rng = np.random.default_rng(0)
    true = shifted(head, np.array(slip))
    np.testing.assert_allclose(
        np.linalg.norm(true.vertices[0] - head.vertices[0]),
        np.linalg.norm(slip),
        atol=1e-9,
    )
    sights = [
        Sight(head, image_of(true, camera, rng), camera)
        for camera in map(camera_at, (-25, 0, 25))
    ]
    found = find_slip(sights, TINT)
    np.testing.assert_allclose(found, slip, atol=0.00075)
    back = shifted(head, found)
    assert np.abs(back.vertices - true.vertices).max() < 0.0011


def test_without_eyes_nothing_is_moved(head):
    camera = camera_at(180)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    assert (find_slip([Sight(head, image, camera)], TINT) == 0).all()
    assert (find_slip([], TINT) == 0).all()
    # Shut eyes: skin all over, and noise that favours no place.
    camera = camera_at(0)
    rng = np.random.default_rng(1)
    noise = SKIN + rng.normal(0, 0.03, (HEIGHT, WIDTH, 3))
    image = np.uint8(255 * np.clip(noise, 0, 1))
    assert (find_slip([Sight(head, image, camera)], TINT) == 0).all()
