"""What a training starts from: anchors, first codes, batches."""

import dataclasses

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.nphm.config import NPHMConfig
from npga_jax.nphm.losses import RANDOM_BOX, RANDOM_POINTS
from npga_jax.prior.anchors import choose_anchors, mirror_vertices
from npga_jax.prior.batches import PointCounts, Sampler, in_front, rim_vertices
from npga_jax.prior.initial_codes import CODE_STD, initial_codes
from npga_jax.prior.scans import compact_mesh
from npga_jax.prior.validation import select_people
from tests.small_scans import egg, small_scans

CFG = NPHMConfig(
    num_anchors=11,
    num_symm_pairs=4,
    num_neighbors=8,
    lat_dim_glob=4,
    lat_dim_loc_geo=2,
    lat_dim_exp=3,
    hidden_dim_app=0,
)


def anchors_of(scans):
    return choose_anchors(
        scans.mean,
        scans.faces,
        np.ones(len(scans.mean), bool),
        num_pairs=4,
        num_middle=3,
    )


def test_anchors_come_in_mirror_pairs_and_spread():
    scans = small_scans()
    points = scans.mean[anchors_of(scans)]
    assert (points[0:8:2, 0] < 0).all()
    np.testing.assert_allclose(points[0:8:2] * [-1, 1, 1], points[1:8:2], atol=1e-3)
    assert (np.abs(points[8:, 0]) < 0.01).all()
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert gaps[~np.eye(11, dtype=bool)].min() > 0.05


def test_too_many_anchors_are_refused():
    vertices, faces = egg(4)
    with pytest.raises(InputError, match="symmetry"):
        choose_anchors(
            vertices, faces, np.ones(len(vertices), bool), num_pairs=99, num_middle=3
        )


def test_mirror_of_a_mirror_is_the_vertex():
    vertices, _ = egg()
    mirror = mirror_vertices(vertices)
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(vertices)))


def test_codes_are_white_and_linear_in_what_makes_people():
    scans = small_scans(40, 3)
    geo, exp = initial_codes(scans, anchors_of(scans), CFG)
    assert geo.shape == (40, CFG.lat_dim_geo) and exp.shape == (160, 3)
    # Three modes make the people: three components live, the fourth is empty.
    glob = geo[:, :4]
    np.testing.assert_allclose(glob[:, :3].std(axis=0), CODE_STD, rtol=1e-3)
    np.testing.assert_array_equal(glob[:, 3], 0)
    np.testing.assert_allclose(np.cov(glob[:, :3].T), np.eye(3) * 0.041, atol=2e-3)
    # Neutral scans have no expression, and the head is a linear map of the code.
    np.testing.assert_allclose(exp[scans.is_neutral], 0, atol=1e-6)
    heads = scans.neutral_fn(np.arange(40)).reshape(40, -1)
    design = np.concatenate([glob, np.ones((40, 1))], axis=1)
    residual = heads - design @ np.linalg.lstsq(design, heads, rcond=None)[0]
    assert np.abs(residual).max() < 1e-4


def test_mirror_pairs_of_symmetric_heads_have_equal_local_codes():
    scans = small_scans(20, 1)
    geo, _ = initial_codes(scans, anchors_of(scans), CFG)
    local = geo[:, 4:].reshape(20, CFG.num_sources, 2)
    np.testing.assert_allclose(local[:, 0:8:2], local[:, 1:8:2], atol=0.05)
    assert np.abs(local[:, :8]).max() > 0.1
    np.testing.assert_array_equal(local[:, -1], 0)


@pytest.fixture(scope="module")
def batch():
    scans = small_scans(5, 4)
    sampler = Sampler(scans, anchors_of(scans), PointCounts(near=400), 6, seed=3)
    return scans, sampler, sampler.batch(7)


def test_batches_depend_on_the_step_alone(batch):
    scans, sampler, first = batch
    again = Sampler(scans, anchors_of(scans), PointCounts(near=400), 6, seed=3)
    np.testing.assert_array_equal(again.batch(7).near.posed, first.near.posed)
    other = sampler.batch(8)
    assert np.abs(other.near.posed - first.near.posed).max() > 0.01


def test_points_lie_where_they_say(batch):
    scans, _, drawn = batch
    posed = scans.posed_fn(drawn.scans)
    np.testing.assert_array_equal(drawn.people, scans.identity_of[drawn.scans])
    for s in range(6):
        # Surface points are inside triangles: no farther from a vertex than an edge.
        points = drawn.official.points_surface[s]
        gap = np.linalg.norm(points[:, None] - posed[s][None], axis=-1).min(1)
        assert gap.max() < 0.06
        normals = drawn.official.normals_surface[s]
        np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-5)
        assert ((normals * points).sum(-1) > 0).mean() > 0.99  # An egg is convex.
    assert np.abs(drawn.official.points_far).max() <= 1
    assert drawn.random_points.shape == (6, RANDOM_POINTS, 3)
    assert (np.abs(drawn.random_points) <= RANDOM_BOX).all()
    assert np.abs(drawn.random_points).max() > 0.98 * RANDOM_BOX
    assert abs(float(drawn.random_points.mean())) < 0.1


def test_near_points_know_their_distance_and_their_place_on_the_neutral(batch):
    scans, _, drawn = batch
    near = drawn.near
    posed = scans.posed_fn(drawn.scans)
    for s in range(6):
        gap = np.linalg.norm(near.posed[s][:, None] - posed[s][None], axis=-1).min(1)
        valid = near.valid[s]
        # Vertices bound the distance from above; a fourth of them was asked.
        assert (np.abs(near.sdf[s][valid]) <= 1.15 * gap[valid]).mean() > 0.98
        assert valid.mean() > 0.5
    neutral = scans.is_neutral[drawn.scans]
    np.testing.assert_allclose(near.posed[neutral], near.neutral[neutral], atol=1e-6)


def test_free_points_lie_in_the_air():
    """An egg with its face cut open: the air in the opening is known to be free."""
    scans = small_scans(3, 1)
    hole = (np.abs(scans.mean[:, :2] + [0, 0.1]) < 0.1).all(1) & (scans.mean[:, 2] > 0)
    faces, used = compact_mesh(scans.faces, ~hole)
    cut = dataclasses.replace(
        scans,
        faces=faces,
        mean=scans.mean[used],
        vertex_regions=scans.vertex_regions[used],
        posed_fn=lambda index: scans.posed_fn(index)[:, used],
        neutral_fn=lambda index: scans.neutral_fn(index)[:, used],
    )
    rim = rim_vertices(faces, cut.vertex_regions)
    assert len(rim) > 8 and (np.abs(cut.mean[rim, :2] + [0, 0.1]) < 0.2).all()
    drawn = Sampler(cut, anchors_of(cut), PointCounts(), 3, seed=0).batch(0)
    points = drawn.free.posed[drawn.free.valid]
    assert len(points) > 60
    # Behind the opening's own edge there is the back of the egg, never flesh.
    assert in_front(cut.mean, np.array([[0.0, -0.1, 0.2]])).all()
    assert not in_front(cut.mean, np.array([[0.0, 0.2, 0.0]])).any()


def test_people_can_be_held_out():
    scans = small_scans(5, 2)
    some = select_people(scans, np.array([1, 4]))
    assert some.num_identities == 2 and some.num_scans == 6
    np.testing.assert_array_equal(some.identity_of, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(
        some.posed_fn(np.array([4])), scans.posed_fn(np.array([13]))
    )
    np.testing.assert_array_equal(some.neutral_fn([1]), scans.neutral_fn([4]))


def test_scans_without_an_outer_region_can_be_drawn_from():
    scans = small_scans(3, 1)
    scans = dataclasses.replace(scans, vertex_regions=scans.vertex_regions * 0)
    drawn = Sampler(scans, anchors_of(scans), PointCounts(), 2, seed=0).batch(0)
    assert np.isfinite(drawn.official.points_outer).all()
