"""Where F is compared with the head model, and with which codes."""

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.distillation.person import move_back
from npga_jax.distillation.sampling import Domain, draw, make_domain
from npga_jax.forward import NECK_HEIGHTS
from npga_jax.nphm.config import METRES_PER_UNIT
from npga_jax.nphm.meshing import TRACKING_BOX
from tests.distillation.ball_person import CODES, make_person
from tests.small_head_model import BALL_RADIUS

sample = jax.jit(draw, static_argnums=(2, 3))
LOW, HIGH = METRES_PER_UNIT * np.array(TRACKING_BOX)


def make_points(codes, moving=0):
    """A domain of two far points of which only one moves."""
    motion = np.eye(2, dtype=np.float32)[moving]
    return Domain(
        surface=jnp.array([[0.0, 0.05, 0.05], [0.0, -0.05, 0.05]]),
        normals=jnp.array([[0.0, 0, 1], [0, 0, 1]]),
        motion=jnp.cumsum(jnp.asarray(motion)),
        codes=jnp.asarray(codes),
        code_std=jnp.std(jnp.asarray(codes), axis=0),
    )


def test_shares_and_spreads_of_points():
    domain = make_points(CODES[:2], moving=1)
    points, far, _ = sample(jax.random.key(0), domain, 8000, 400)
    points, far = np.asarray(points), np.asarray(far)
    assert points.shape == (8000, 3) and far.shape == (1000, 3)
    near, moving, box = points[:4000], points[4000:6000], points[6000:]
    surface = np.asarray(domain.surface)
    index = np.argmin(np.linalg.norm(near[:, None] - surface, axis=-1), axis=1)
    assert 0.45 < index.mean() < 0.55
    np.testing.assert_allclose((near - surface[index]).std(axis=0), 0.0025, rtol=0.1)
    np.testing.assert_allclose(moving.mean(axis=0), surface[1], atol=5e-4)
    np.testing.assert_allclose((moving - surface[1]).std(axis=0), 0.005, rtol=0.1)
    low = np.array([LOW[0], NECK_HEIGHTS[1], LOW[2]])
    assert (box >= low).all() and (box <= HIGH).all()
    np.testing.assert_allclose(box.mean(axis=0), (low + HIGH) / 2, atol=0.01)
    outside = ((far <= low) | (far >= HIGH)).any(axis=1)
    assert outside.all() and np.abs(far).max() <= 1.25 * METRES_PER_UNIT


def test_codes_are_tracked_ones_and_mixes_of_two_with_some_noise():
    same = np.tile(CODES[:1], (2, 1))
    expr = sample(jax.random.key(1), make_points(same), 8000, 400).expr
    np.testing.assert_allclose(expr, np.tile(same[:1], (400, 1)), atol=1e-6)
    two = CODES[:2]
    quiet = make_points(two)._replace(code_std=jnp.zeros(4))
    expr = np.asarray(sample(jax.random.key(2), quiet, 8000, 400).expr)
    way = two[1] - two[0]
    share = (expr - two[0]) @ way / (way @ way)
    np.testing.assert_allclose(expr, two[0] + share[:, None] * way, atol=1e-5)
    assert share.min() > -1e-5 and share.max() < 1 + 1e-5
    at_an_end = (share < 1e-4) | (share > 1 - 1e-4)
    # Half are not mixed, and of the mixed ones half are of a code with itself.
    assert 0.65 < at_an_end.mean() < 0.85
    noisy = np.asarray(sample(jax.random.key(2), make_points(two), 8000, 400).expr)
    expected = 0.1 * two.std(axis=0)
    np.testing.assert_allclose((noisy - expr).std(axis=0), expected, rtol=0.15)


def test_the_domain_is_the_canonical_surface_and_knows_what_moves():
    domain, backward = make_domain(make_person(), CODES, resolution=40)
    radius = np.linalg.norm(domain.surface, axis=1) / METRES_PER_UNIT
    np.testing.assert_allclose(radius, BALL_RADIUS, atol=0.02)
    outward = np.asarray(domain.surface) / radius[:, None] / METRES_PER_UNIT
    assert np.sum(outward * domain.normals, axis=1).min() > 0.9
    assert (np.asarray(domain.surface)[:, 1] > NECK_HEIGHTS[1]).all()
    motion = np.asarray(domain.motion)
    assert (np.diff(motion) >= 0).all()
    np.testing.assert_allclose(motion[-1], 1, atol=1e-3)
    # Shares are as what the codes do to each point, and not all alike.
    points = jnp.broadcast_to(domain.surface, (len(CODES), *domain.surface.shape))
    moved = np.asarray(move_back(backward, points, jnp.asarray(CODES))[0])
    spread = moved.std(axis=0).sum(axis=1)
    shares = np.diff(motion, prepend=0)
    np.testing.assert_allclose(shares, spread / spread.sum(), rtol=0.02)
    assert shares.max() > 1.1 * shares.min()
