"""Screen-space ellipses against matrix formulas in float64, and culling."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from npga_jax.rasterizer.projection import ALPHA_THRESHOLD, project_gaussians

from .scenes import LEAVES, cameras, cloud, quick_jit

WIDTH, HEIGHT, EPS = 450, 370, 0.3


def _project(columns, **options):
    fn = partial(project_gaussians, width=WIDTH, height=HEIGHT, eps2d=EPS, **options)
    return jax.tree.map(np.asarray, quick_jit(fn)(*columns))


def _covariances(scene, viewmat, K):
    """Camera positions [N, 3] and 2D covariances [N, 2, 2] without the low-pass."""
    world_to_camera = np.float64(viewmat[:3, :3])
    t = scene["means"] @ world_to_camera.T + viewmat[:3, 3]
    rotations = Rotation.from_quat(np.roll(scene["quats"], -1, axis=1)).as_matrix()
    spread = rotations * np.float64(scene["scales"])[:, None, :]
    J = np.zeros((len(t), 2, 3))
    J[:, 0, 0], J[:, 0, 2] = K[0, 0] / t[:, 2], -K[0, 0] * t[:, 0] / t[:, 2] ** 2
    J[:, 1, 1], J[:, 1, 2] = K[1, 1] / t[:, 2], -K[1, 1] * t[:, 1] / t[:, 2] ** 2
    A = J @ world_to_camera @ spread
    return t, A @ A.swapaxes(1, 2)


def _setting():
    """A scene, most of whose centres are in view: there, no Jacobian is clamped."""
    scene = cloud(200)
    (viewmat,), (K,) = cameras(1, WIDTH, HEIGHT)
    return scene, [scene[k] for k in LEAVES[:4]] + [viewmat, K]


def _in_view(out):
    inside = np.all((out.means2d > 0) & (out.means2d < [WIDTH, HEIGHT]), axis=1)
    return inside & (out.radii[:, 0] > 0)


def test_ellipses_match_the_matrix_formulas():
    scene, columns = _setting()
    t, covariances = _covariances(scene, *columns[4:])
    covariances += EPS * np.eye(2)
    out = _project(columns)
    seen = _in_view(out)
    assert seen.sum() > 100
    np.testing.assert_allclose(out.depths, t[:, 2], rtol=1e-6)
    K = columns[5]
    centres = t[:, :2] / t[:, 2:] * np.diag(K)[:2] + K[:2, 2]
    np.testing.assert_allclose(out.means2d[seen], centres[seen], atol=2e-4)
    inverse = np.linalg.inv(covariances)[seen]
    conics = np.stack([inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]], -1)
    size = np.abs(conics).max(axis=1, keepdims=True)
    np.testing.assert_allclose(out.conics[seen] / size, conics / size, atol=2e-5)
    # The box is that of the ellipse on which alpha is 1/255.
    reach = 2 * np.log(scene["opacities"][seen] / ALPHA_THRESHOLD)
    boxes = np.sqrt(reach[:, None] * covariances[seen][:, [0, 1], [0, 1]])
    np.testing.assert_allclose(out.radii[seen], boxes, rtol=1e-4)
    np.testing.assert_array_equal(out.opacities[seen], scene["opacities"][seen])


def test_antialiasing_scales_opacity_by_the_low_pass_filters_loss():
    scene, columns = _setting()
    covariances = _covariances(scene, *columns[4:])[1]
    ratio = np.linalg.det(covariances) / np.linalg.det(covariances + EPS * np.eye(2))
    out = _project(columns, antialiased=True)
    seen = _in_view(out)
    expected = scene["opacities"] * np.sqrt(ratio)
    np.testing.assert_allclose(out.opacities[seen], expected[seen], rtol=1e-3)


def test_a_needle_keeps_its_width_in_float32():
    """The determinant of a thin, long, oblique splat must not cancel."""
    columns = [
        np.array([[0.0, 0.0, 1.0]]),
        np.array([[np.cos(np.pi / 8), 0.0, 0.0, np.sin(np.pi / 8)]]),
        np.array([[1.0, 1e-4, 1e-4]]),
        np.array([0.9]),
        np.eye(4),
        np.array([[1000.0, 0, 400], [0, 1000, 300], [0, 0, 1]]),
    ]
    single = _project([jnp.asarray(x, jnp.float32) for x in columns])
    with jax.enable_x64(True):
        double = _project([jnp.asarray(x) for x in columns])
    np.testing.assert_allclose(single.conics, double.conics, rtol=1e-4)


def test_near_and_far_planes_and_the_frame_cull():
    n = 7
    means = np.zeros((n, 3), np.float32)
    means[:, 2] = [-1, 0, 0.49, 0.51, 3.99, 4.01, 2]
    means[6, 0] = 2.0  # At the tangent 1, beyond a half-width of 0.5.
    columns = [
        means,
        np.float32([[1, 0, 0, 0]] * n),
        np.full((n, 3), 1e-3, np.float32),
        np.full(n, 0.9, np.float32),
        np.eye(4, dtype=np.float32),
        np.float32([[WIDTH, 0, WIDTH / 2], [0, WIDTH, HEIGHT / 2], [0, 0, 1]]),
    ]
    out = _project(columns, near_plane=0.5, far_plane=4.0)
    expected = [False, False, False, True, True, False, False]
    np.testing.assert_array_equal(out.radii[:, 0] > 0, expected)
    np.testing.assert_array_equal(out.opacities > 0, expected)
    assert not np.any(out.invalid)
