"""Label maps of the mean head, painted by hand."""

import numpy as np
import pytest

from npga_jax.data import Camera, PointCloud, segmentation
from npga_jax.nphm import METRES_PER_UNIT
from npga_jax.preparation.labels import (
    hairline_of,
    label_view,
    learn_colors,
    place_head,
)
from npga_jax.tracking import packaged_template

SKIN, BLACK_HAIR = np.array([0.75, 0.58, 0.5]), np.array([0.12, 0.1, 0.09])
WIDTH, HEIGHT = 160, 200


@pytest.fixture(scope="module")
def template():
    return packaged_template()


def camera_at(azimuth: float) -> Camera:
    """Looks at the head's origin from a metre away."""
    a = np.deg2rad(azimuth)
    back = np.array([np.sin(a), 0.0, np.cos(a)])
    down = np.array([0.0, -1.0, 0.0])
    rotation = np.stack([np.cross(down, -back), down, -back])
    world2cam = np.eye(4, dtype=np.float32)
    world2cam[:3, :3] = rotation
    world2cam[:3, 3] = [0, 0, 1.0]
    K = np.array([[300, 0, WIDTH / 2], [0, 300, HEIGHT / 2], [0, 0, 1]], np.float32)
    return Camera(K, world2cam, WIDTH, HEIGHT, "front")


def head_of(template, vertices=None):
    posed = template.vertices if vertices is None else vertices
    return place_head(template, hairline_of(template), posed, np.eye(4))


def cloud_of(head, rng, hair=None):
    """A point on each face; the scalp has the hair's colour, if there is any."""
    corners = head.vertices[head.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    on_scalp = head.labels == segmentation.HAIR
    colors = np.where(on_scalp[:, None], SKIN if hair is None else hair, SKIN)
    noise = rng.normal(0, 0.02, colors.shape)
    return PointCloud(
        xyz=corners.mean(axis=1).astype(np.float32),
        rgb=np.clip(colors + noise, 0, 1).astype(np.float32),
        normals=normals.astype(np.float32),
    )


def paint(color):
    image = np.broadcast_to(np.uint8(255 * np.asarray(color)), (HEIGHT, WIDTH, 3))
    return image.copy()


def pixel_of(point, camera):
    """Of a point in NPHM units: (row, column)."""
    seen = camera.world2cam[:3, :3] @ (point * METRES_PER_UNIT)
    seen = camera.K @ (seen + camera.world2cam[:3, 3])
    return int(seen[1] / seen[2]), int(seen[0] / seen[2])


FULL = np.full((HEIGHT, WIDTH), 255, np.uint8)


def test_parts_are_where_the_template_has_them(template):
    camera = camera_at(0)
    labels = label_view(head_of(template), None, None, paint(SKIN), FULL, camera)
    for rim, label in zip(template.rims[:2], template.rim_labels[:2], strict=True):
        assert labels[pixel_of(template.vertices[rim].mean(axis=0), camera)] == label
    assert labels[pixel_of(np.array([0.0, 0.0, 0.3]), camera)] == segmentation.FACE
    assert labels[pixel_of(np.array([0.0, -0.6, 0.0]), camera)] == segmentation.NECK
    # Closed lips show nothing of what is between them.
    assert (labels == segmentation.INNER_MOUTH).sum() < 10
    # Nothing tells hair from skin: the scalp counts as skin.
    assert labels[pixel_of(np.array([0.0, 0.45, 0.0]), camera)] == segmentation.FACE


def test_an_open_mouth_is_seen(template):
    camera = camera_at(0)
    vertices = template.vertices.copy()
    rim = template.rims[-1]
    lower = np.isin(template.guides, template.guides[rim[vertices[rim, 1] < -0.197]])
    vertices[lower | (vertices[:, 1] < -0.25), 1] -= 0.08
    labels = label_view(
        head_of(template, vertices), None, None, paint(SKIN), FULL, camera
    )
    assert (labels == segmentation.INNER_MOUTH).sum() > 50
    middle = vertices[rim].mean(axis=0)
    assert labels[pixel_of(middle, camera)] == segmentation.INNER_MOUTH


def test_where_the_matte_is_dark_is_background(template):
    matte = FULL.copy()
    matte[:, : WIDTH // 2] = 100
    camera = camera_at(0)
    labels = label_view(head_of(template), None, None, paint(SKIN), matte, camera)
    assert (labels[:, : WIDTH // 2] == segmentation.BACKGROUND).all()
    assert (labels[:, WIDTH // 2 :] != segmentation.BACKGROUND).all()


def test_hair_is_told_by_its_colour(template):
    rng = np.random.default_rng(0)
    head = head_of(template)
    colors = learn_colors([cloud_of(head, rng, hair=BLACK_HAIR)], [head])
    assert colors is not None and colors.hair is not None
    np.testing.assert_allclose(colors.skin.mean, SKIN, atol=0.02)
    np.testing.assert_allclose(colors.hair.mean, BLACK_HAIR, atol=0.02)
    camera = camera_at(0)
    image = paint(SKIN)
    line = pixel_of(np.array([0.0, 0.35, 0.25]), camera)[0]
    image[:line] = 255 * BLACK_HAIR
    labels = label_view(head, colors, None, image, FULL, camera)
    above, below = labels[: line - 4], labels[line + 4 :]
    assert (above == segmentation.HAIR).mean() > 0.99
    face = pixel_of(np.array([0.0, 0.2, 0.3]), camera)
    assert labels[face] == segmentation.FACE
    # Dark brows, eyes and shadows in the middle of a face are no hair.
    image[pixel_of(np.array([0.0, 0.0, 0.3]), camera)] = 255 * BLACK_HAIR
    labels = label_view(head, colors, None, image, FULL, camera)
    assert labels[pixel_of(np.array([0.0, 0.0, 0.3]), camera)] == segmentation.FACE
    assert set(np.unique(below)) > {segmentation.FACE, segmentation.NECK}


def test_a_bald_head_has_no_hair(template):
    head = head_of(template)
    cloud = cloud_of(head, np.random.default_rng(0))
    colors = learn_colors([cloud], [head])
    assert colors is not None and colors.hair is None


def test_too_few_points_tell_nothing(template):
    head = head_of(template)
    cloud = cloud_of(head, np.random.default_rng(0), hair=BLACK_HAIR)
    few = PointCloud(cloud.xyz[:40], cloud.rgb[:40], cloud.normals[:40])
    assert learn_colors([few], [head]) is None


def test_beside_the_head_points_tell_hair_from_torso(template):
    """What stands out beside the neck is torso where points are low, hair else."""
    camera = camera_at(0)
    rng = np.random.default_rng(1)
    xyz = rng.uniform((-0.2, -0.22, -0.05), (0.2, 0.15, 0.05), (4000, 3))
    cloud = PointCloud(
        xyz.astype(np.float32), np.full((4000, 3), 0.5, np.float32), None
    )
    labels = label_view(head_of(template), None, cloud, paint(SKIN), FULL, camera)
    high = pixel_of(np.array([0.6, 0.3, 0.0]), camera)
    low = pixel_of(np.array([0.62, -0.7, 0.0]), camera)
    assert labels[high] == segmentation.HAIR
    assert labels[low] == segmentation.NECK
