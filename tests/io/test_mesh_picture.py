"""Drawn meshes: where pixels fall, what is in front, how they are lit."""

import time

import numpy as np
import pytest

from npga_jax.core.mesh import vertex_normals
from npga_jax.io.mesh_picture import portrait_camera, render_mesh

WIDTH, HEIGHT = 48, 40
FOCAL = 50.0
INTRINSICS = np.array([[FOCAL, 0, 24], [0, FOCAL, 20], [0, 0, 1]])


def _render(vertices, faces, **options):
    options = {
        "viewmat": np.eye(4),
        "K": INTRINSICS,
        "width": WIDTH,
        "height": HEIGHT,
        **options,
    }
    return render_mesh(np.asarray(vertices, float), np.asarray(faces), **options)


def _sphere(rings=60):
    """A unit sphere around the origin, faces outward."""
    theta = np.linspace(0, np.pi, rings)
    phi = np.linspace(0, 2 * np.pi, 2 * rings)
    t, p = np.meshgrid(theta, phi, indexing="ij")
    points = np.stack([np.sin(t) * np.cos(p), np.cos(t), np.sin(t) * np.sin(p)], -1)
    i, j = np.meshgrid(np.arange(rings - 1), np.arange(2 * rings - 1), indexing="ij")
    corner = (i * 2 * rings + j).ravel()
    a, b, c, d = corner, corner + 1, corner + 2 * rings, corner + 2 * rings + 1
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])
    return points.reshape(-1, 3), faces


def test_a_pixel_belongs_to_the_triangle_that_its_centre_lies_in():
    # At z = 50 with this focal length one unit is one pixel.
    corners = np.array([[-10.3, -5.1, 50], [12.2, -8.4, 50], [1.7, 14.9, 50]])
    picture = _render(corners, [[0, 1, 2]])
    x, y = np.meshgrid(np.arange(WIDTH) - 23.5, np.arange(HEIGHT) - 19.5)
    inside = np.ones((HEIGHT, WIDTH), bool)
    for i in range(3):
        (ax, ay), (bx, by) = corners[i, :2], corners[(i + 1) % 3, :2]
        inside &= (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0
    np.testing.assert_array_equal(picture.mask, inside)
    np.testing.assert_allclose(picture.depth[inside], 50, rtol=1e-6)
    assert (picture.depth[~inside] == 0).all()
    assert (picture.rgb[~inside] == 255).all()
    assert inside.sum() > 200


def test_neighbours_leave_no_gap_and_do_not_overlap():
    # Fans around a vertex tile a square exactly: each pixel is drawn by one of them.
    rng = np.random.default_rng(0)
    square = np.array([[-15, -15], [15, -15], [15, 15], [-15, 15]], float)
    for _ in range(20):
        middle = rng.uniform(-14, 14, 2)
        points = np.concatenate([square, middle[None]])
        vertices = np.column_stack([points, np.full(5, 50.0)])
        faces = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])
        drawn = sum(_render(vertices, face[None]).mask.astype(int) for face in faces)
        np.testing.assert_array_equal(drawn[5:35, 9:39], 1)
        assert drawn.sum() == 900


def test_depth_and_colors_are_in_perspective():
    # A floor that runs from near to far: y = 1 everywhere.
    vertices = np.array([[-9, 1, 2], [9, 1, 2], [9, 1, 30], [-9, 1, 30]], float)
    colors = np.uint8([[0, 0, 0], [0, 0, 0], [250, 250, 250], [250, 250, 250]])
    picture = _render(vertices, [[0, 1, 2], [0, 2, 3]], colors=colors, shading=False)
    rows = np.arange(22, HEIGHT)
    column = picture.depth[rows, 24]
    np.testing.assert_allclose(column, FOCAL / (rows + 0.5 - 20), rtol=1e-5)
    expected = 250 * (column - 2) / 28
    np.testing.assert_allclose(picture.rgb[rows, 24, 0], expected, atol=0.51)


def test_the_nearest_is_seen_whatever_the_order():
    near = np.array([[-5, -5, 40], [5, -5, 40], [0, 8, 40]], float)
    far = near * [2, 2, 1.5]
    vertices = np.concatenate([near, far])
    colors = np.uint8([[255, 0, 0]] * 3 + [[0, 0, 255]] * 3)
    for faces in ([[0, 1, 2], [3, 4, 5]], [[3, 4, 5], [0, 1, 2]]):
        picture = _render(vertices, faces, colors=colors, shading=False)
        is_red = (picture.rgb == [255, 0, 0]).all(-1)
        is_blue = (picture.rgb == [0, 0, 255]).all(-1)
        np.testing.assert_array_equal(picture.depth[is_red], 40)
        np.testing.assert_array_equal(picture.depth[is_blue], 60)
        np.testing.assert_array_equal(is_red | is_blue, picture.mask)
        assert is_red.sum() > 50
        assert is_blue.sum() > 50


def test_behind_outside_and_degenerate_faces():
    vertices = [[0, 0, -5], [1, 0, 5], [0, 1, 5], [1e9, 0, 5], [1e9, 1, 5], [2e9, 0, 5]]
    assert not _render(vertices, [[0, 1, 2], [3, 4, 5], [1, 1, 2]]).mask.any()
    assert not _render(np.zeros((0, 3)), np.zeros((0, 3), int)).mask.any()
    # One that covers the whole image and far more.
    huge = [[-1e6, -1e6, 3], [1e6, -1e6, 3], [0, 1e7, 3]]
    picture = _render(huge, [[0, 1, 2]])
    assert picture.mask.all()
    np.testing.assert_allclose(picture.depth, 3, rtol=1e-5)
    with pytest.raises(ValueError, match="not finite"):
        _render([[np.nan, 0, 1], [1, 0, 1], [0, 1, 1]], [[0, 1, 2]])


def test_a_moved_camera_sees_what_the_moved_mesh_shows():
    vertices, faces = _sphere(20)
    angle = 0.4
    viewmat = np.eye(4)
    viewmat[:3, :3] = [
        [np.cos(angle), 0, np.sin(angle)],
        [0, 1, 0],
        [-np.sin(angle), 0, np.cos(angle)],
    ]
    viewmat[:3, 3] = [0.2, -0.1, 4]
    moved = vertices @ viewmat[:3, :3].T + viewmat[:3, 3]
    one, other = _render(vertices, faces, viewmat=viewmat), _render(moved, faces)
    assert one.mask.sum() > 400
    np.testing.assert_array_equal(one.mask, other.mask)
    np.testing.assert_allclose(one.depth, other.depth, atol=1e-5)
    assert np.abs(one.rgb.astype(int) - other.rgb.astype(int)).max() <= 1


def test_light_comes_from_above_left_and_both_sides_are_lit():
    vertices, faces = _sphere()
    vertices = vertices + np.array([0, 0, 4])
    grey = _render(vertices, faces).rgb[..., 0].astype(int)
    assert grey[14, 18] > grey[20, 24] > grey[26, 30] > 0
    # The shading does not depend on which way round the faces are stored.
    flipped = _render(vertices, faces[:, ::-1]).rgb[..., 0].astype(int)
    assert np.abs(grey - flipped).max() <= 1
    normals = vertex_normals(vertices, faces)
    given = _render(vertices, faces, normals=normals).rgb[..., 0].astype(int)
    assert np.abs(grey - given).max() <= 1


def test_a_portrait_shows_the_whole_head_from_the_right_side():
    # Boxes for nose (+z), crown (+y) and the subject's left ear (+x).
    rng = np.random.default_rng(0)
    marks = {"nose": [0, 0, 1], "crown": [0, 1, 0], "ear": [0.8, 0, 0]}
    vertices = np.concatenate(
        [rng.uniform(-0.05, 0.05, (20, 3)) + at for at in marks.values()]
    )
    viewmat, intrinsics = portrait_camera(vertices, 0, 100, 120)
    center = {}
    for azimuth in (0, 90):
        viewmat, intrinsics = portrait_camera(vertices, azimuth, 100, 120)
        projected = (vertices @ viewmat[:3, :3].T + viewmat[:3, 3]) @ intrinsics.T
        assert (projected[:, 2] > 0).all()
        pixels = projected[:, :2] / projected[:, 2:]
        assert (pixels > 0).all()
        assert (pixels < [100, 120]).all()
        # As large as fits.
        assert np.abs(pixels / [50, 60] - 1).max() == pytest.approx(0.95)
        np.testing.assert_allclose(np.linalg.det(viewmat), 1)
        means = pixels.reshape(3, 20, 2).mean(1)
        center[azimuth] = dict(zip(marks, means, strict=True))
    front, left = center[0], center[90]
    assert front["crown"][1] < front["nose"][1] - 20
    assert front["ear"][0] > front["nose"][0] + 20
    # From the subject's left the face looks to the left of the image.
    assert left["nose"][0] < left["ear"][0] - 20


def test_two_hundred_thousand_triangles_take_about_a_second():
    vertices, faces = _sphere(230)
    viewmat, intrinsics = portrait_camera(vertices, 20, 800, 550)
    start = time.process_time()
    picture = render_mesh(
        vertices, faces, viewmat=viewmat, K=intrinsics, width=800, height=550
    )
    assert len(faces) > 200_000
    assert picture.mask.sum() > 150_000
    assert time.process_time() - start < 5
