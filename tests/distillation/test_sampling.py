"""Where F is compared with the head model, and with which codes."""

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.avatar.forward import NECK_HEIGHTS
from npga_jax.distillation.person import move_back
from npga_jax.distillation.sampling import Domain, draw, make_domain, vertex_strain
from npga_jax.nphm.config import METRES_PER_UNIT
from npga_jax.nphm.meshing import TRACKING_BOX
from tests.distillation.ball_person import CODES, make_person
from tests.small_head_model import BALL_RADIUS

sample = jax.jit(draw, static_argnums=(2, 3))
LOW, HIGH = METRES_PER_UNIT * np.array(TRACKING_BOX)


def make_points(codes, strained=0):
    """A domain of two far points of which only one is stretched."""
    strain = np.eye(2, dtype=np.float32)[strained]
    return Domain(
        surface=jnp.array([[0.0, 0.05, 0.05], [0.0, -0.05, 0.05]]),
        normals=jnp.array([[0.0, 0, 1], [0, 0, 1]]),
        strain=jnp.cumsum(jnp.asarray(strain)),
        codes=jnp.asarray(codes),
        neutral=jnp.asarray(codes[0]),
        code_std=jnp.std(jnp.asarray(codes), axis=0),
        shut=jnp.zeros((1, codes.shape[1])),
    )


def test_shares_and_spreads_of_points():
    domain = make_points(CODES[:2], strained=1)
    points, far, _, offsets = sample(jax.random.key(0), domain, 8000, 400)
    points, far = np.asarray(points), np.asarray(far)
    assert points.shape == (8000, 3) and far.shape == (1000, 3)
    assert offsets.shape == (400, 4000, 3)
    surface = np.asarray(domain.surface)
    away = np.linalg.norm(points[:, None] - surface, axis=-1)
    index, is_near = away.argmin(axis=1), away.min(axis=1) < 0.0125
    # Half of what is near, which is three eighths, and the half that is stretched.
    assert 0.86 < is_near.mean() < 0.89
    assert (11 / 14 - 0.03) < index[is_near].mean() < (11 / 14 + 0.03)
    spread = (points - surface[index])[is_near].std(axis=0)
    np.testing.assert_allclose(spread, 0.0025, rtol=0.1)
    box = points[~is_near]
    low = np.array([LOW[0], NECK_HEIGHTS[1], LOW[2]])
    assert (box >= low).all() and (box <= HIGH).all()
    np.testing.assert_allclose(box.mean(axis=0), (low + HIGH) / 2, atol=0.02)
    # The halves of a sample, which begin here and there, are alike.
    assert abs(is_near[:4000].mean() - is_near[4000:].mean()) < 0.03
    outside = ((far <= low) | (far >= HIGH)).any(axis=1)
    assert outside.all() and np.abs(far).max() <= 1.25 * METRES_PER_UNIT


def test_three_codes_of_ten_shut_their_eyes_further():
    same = np.tile(CODES[:1], (2, 1))
    motions = np.zeros((2, 4), np.float32)
    motions[0, 0] = motions[1, 2] = 1.0
    domain = make_points(same)._replace(shut=jnp.asarray(motions))
    expr = np.asarray(sample(jax.random.key(3), domain, 800, 4000).expr) - CODES[0]
    assert np.abs(expr[:, [1, 3]]).max() < 1e-6 and expr.min() > -1e-6
    moved = expr > 1e-6
    assert not moved.all(axis=1).any() and not (moved[:, 0] & moved[:, 2]).any()
    np.testing.assert_allclose(moved[:, [0, 2]].mean(axis=0), 0.15, atol=0.03)
    for column in (0, 2):
        own = expr[moved[:, column], column]
        assert 1.2 < own.max() <= 1.25
        np.testing.assert_allclose(own.mean(), 0.625, atol=0.05)


def test_codes_are_the_neutral_one_and_some_expressions_with_some_noise():
    same = np.tile(CODES[:1], (2, 1))
    expr = sample(jax.random.key(1), make_points(same), 8000, 400).expr
    np.testing.assert_allclose(expr, np.tile(same[:1], (400, 1)), atol=1e-6)
    four = np.zeros((4, 4), np.float32)
    four[1:, :3] = np.eye(3)
    quiet = make_points(four + CODES[0])._replace(code_std=jnp.zeros(4))
    expr = np.asarray(sample(jax.random.key(2), quiet, 800, 4000).expr) - CODES[0]
    # At most six, of which each adds from none to all of one of the four.
    assert expr.min() > -1e-6 and expr[:, 3].max() < 1e-6
    total = expr.sum(axis=1)
    assert 4 < total.max() < 6 and (total < 1).mean() > 0.2
    # One to six alike, half of each, three quarters of them not neutral.
    np.testing.assert_allclose(total.mean(), 3.5 * 0.5 * 0.75, rtol=0.05)
    noisy = make_points(four + CODES[0])
    noise = np.asarray(sample(jax.random.key(2), noisy, 800, 4000).expr) - CODES[0]
    expected = 0.5 * four.std(axis=0)
    np.testing.assert_allclose((noise - expr).std(axis=0), expected, rtol=0.1)


def test_strain_is_what_lies_between_the_ends_of_edges():
    """A row of points a centimetre apart: moved as a whole, and torn at one place."""
    points = np.float32([[0.01 * i, 0, 0] for i in range(6)])
    edges = np.array([[i, i + 1] for i in range(5)])
    torn = np.zeros((6, 3), np.float32)
    torn[3:, 1] = 0.005
    strain = vertex_strain(points, edges, np.stack([np.ones((6, 3)), torn]))
    # Of two edges of points 2 and 3, one is stretched by half its length.
    expected = np.zeros(6)
    expected[2:4] = 0.5 / np.sqrt(2)
    np.testing.assert_allclose(strain, expected, rtol=0.05, atol=1e-3)


def test_the_domain_is_the_canonical_surface_and_knows_what_moves():
    domain, backward = make_domain(make_person(), CODES, resolution=40)
    radius = np.linalg.norm(domain.surface, axis=1) / METRES_PER_UNIT
    np.testing.assert_allclose(radius, BALL_RADIUS, atol=0.02)
    outward = np.asarray(domain.surface) / radius[:, None] / METRES_PER_UNIT
    assert np.sum(outward * domain.normals, axis=1).min() > 0.9
    assert (np.asarray(domain.surface)[:, 1] > NECK_HEIGHTS[1]).all()
    strain = np.asarray(domain.strain)
    assert (np.diff(strain) >= 0).all()
    np.testing.assert_allclose(strain[-1], 1, atol=1e-3)
    # Shares are as the slope of what the codes do to each point.
    probe = domain.surface[::50]
    moved = jax.vmap(
        lambda x: (
            move_back(
                backward,
                jnp.broadcast_to(x, (len(CODES), 1, 3)),
                jnp.asarray(CODES),
            )[0][:, 0]
            - x
        )
    )
    slope = jax.vmap(jax.jacfwd(lambda x: moved(x[None])[0]))(probe)
    # Edges lie in the surface: what happens across it is not seen.
    normals = domain.normals[::50]
    along = np.eye(3) - normals[:, :, None] * normals[:, None]
    across = np.linalg.norm(np.asarray(slope) @ along[:, None], axis=(2, 3))
    expected = np.quantile(across, 0.98, axis=1)
    shares = np.diff(strain, prepend=0)[::50]
    assert np.corrcoef(shares, expected)[0, 1] > 0.8
