"""Spherical harmonics against scipy's, in the order and sign of 3DGS."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import sph_harm_y

from npga_jax.rasterizer import sh
from npga_jax.rasterizer.rendering import rasterization

from .scenes import LEAVES, cameras, cloud, quick_jit

_rng = np.random.default_rng(0)


def _directions(n):
    vectors = _rng.normal(size=(n, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _bases(directions, num):
    """Values of the first bases [N, K], read off through the colours."""
    n = len(directions)
    columns = []
    for k in range(num):
        coefficients = np.zeros((n, num, 3), np.float32)
        # Half of the basis may be negative, which a colour would clip.
        coefficients[:, 0] = 5.0 / sh.C0
        coefficients[:, k] += 1.0
        columns.append(sh.eval_sh(coefficients, jnp.float32(directions))[:, 0] - 5.5)
    return np.stack(columns, axis=1)


def test_all_sixteen_bases_match_scipy():
    directions = _directions(40)
    polar, azimuth = np.arccos(directions[:, 2]), np.arctan2(*directions.T[1::-1])
    expected = []
    for degree in range(4):
        for order in range(-degree, degree + 1):
            # scipy's complex harmonics hold the Condon-Shortley sign, as do 3DGS's.
            value = sph_harm_y(degree, abs(order), polar, azimuth)
            if order < 0:
                expected.append(np.sqrt(2) * value.imag)
            elif order == 0:
                expected.append(value.real)
            else:
                expected.append(np.sqrt(2) * value.real)
    np.testing.assert_allclose(
        _bases(directions, 16), np.stack(expected, axis=1), atol=3e-6
    )


def test_bases_are_orthonormal_on_the_sphere():
    nodes, weights = np.polynomial.legendre.leggauss(5)
    angles = np.arange(10) * 2 * np.pi / 10
    z, angle = (x.ravel() for x in np.meshgrid(nodes, angles, indexing="ij"))
    r = np.sqrt(1 - z**2)
    points = np.stack([r * np.cos(angle), r * np.sin(angle), z], axis=1)
    area = np.repeat(weights, 10) * 2 * np.pi / 10
    bases = _bases(points, 16)
    np.testing.assert_allclose((bases * area[:, None]).T @ bases, np.eye(16), atol=1e-4)


def test_degree_one_follows_minus_y_z_minus_x():
    c1 = np.sqrt(3 / (4 * np.pi))
    axes = np.eye(3)
    expected = c1 * np.array([[0, 0, -1], [-1, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(_bases(axes, 4)[:, 1:], expected, atol=2e-6)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_a_lower_degree_is_the_higher_one_with_zeros(degree):
    num = sh.num_sh_bases(degree)
    coefficients = np.float32(_rng.normal(size=(30, 16, 3)))
    coefficients[:, num:] = 0
    directions = np.float32(_directions(30))
    np.testing.assert_allclose(
        sh.eval_sh(coefficients[:, :num], directions),
        sh.eval_sh(coefficients, directions),
        atol=1e-6,
    )


def test_rgb_to_sh_is_inverted_in_every_direction():
    rgb = np.float32(_rng.uniform(size=(30, 3)))
    colors = sh.eval_sh(sh.rgb_to_sh(rgb)[:, None], np.float32(_directions(30)))
    np.testing.assert_allclose(colors, rgb, atol=1e-6)


def test_colours_are_clipped_at_zero():
    black = np.full((4, 1, 3), -100.0, np.float32)
    assert np.all(sh.eval_sh(black, np.float32(_directions(4))) == 0)


def test_black_is_left_again_where_the_image_should_be_brighter():
    # Channels: lit, black and wanted brighter, black and wanted darker.
    coefficients = jnp.array([[[1.0, -5.0, -5.0], *[[0.2, 0.1, 0.1]] * 3]])
    direction = jnp.ones((1, 3)) / 3**0.5
    slope = jnp.array([1.0, -2.0, 2.0])

    def loss(sh_):
        return jnp.sum(sh.eval_sh(sh_, direction) * slope)

    value, grad = jax.value_and_grad(loss)(coefficients)
    color = sh.eval_sh(coefficients, direction)
    assert color[0, 0] > 0 and np.all(color[0, 1:] == 0)
    np.testing.assert_allclose(value, color[0, 0])
    lit, brighter, darker = grad[0].T
    assert np.all(lit != 0) and np.all(darker == 0)
    np.testing.assert_allclose(brighter, -2 * lit, rtol=1e-6)
    # A step leads out.
    for _ in range(20):
        coefficients = coefficients - jax.grad(loss)(coefficients)
    assert sh.eval_sh(coefficients, direction)[0, 1] > 0


def test_a_black_gaussian_learns_the_colour_of_its_image():
    """Gradients through the whole renderer, not only through the clamp."""
    scene = cloud(sh_bases=1)
    scene["colors"][:] = sh.rgb_to_sh(-0.2)

    def loss(colors):
        arrays = [*(scene[k] for k in LEAVES[:-1]), colors, *cameras(1, 24, 24)]
        size = {"width": 24, "height": 24, "max_isects": 4096}
        return jnp.mean((rasterization(*arrays, **size).colors - 0.5) ** 2)

    grad = quick_jit(jax.grad(loss))(scene["colors"])
    assert np.all(grad <= 0)
    assert np.count_nonzero(np.any(grad != 0, axis=(1, 2))) > 20


@pytest.mark.parametrize("num", [0, 2, 3, 5, 15, 17, 25])
def test_a_number_of_bases_that_is_no_square_is_refused(num):
    with pytest.raises(ValueError, match=f"{num} bases"):
        sh.eval_sh(jnp.zeros((2, num, 3)), jnp.ones((2, 3)))
