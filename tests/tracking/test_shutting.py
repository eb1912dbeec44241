"""Eyes that shut: what a head model says of them, and what label maps do."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from npga_jax.nphm.config import METRES_PER_UNIT, MILLIMETRES_PER_UNIT
from npga_jax.tracking.alignment import Similarity
from npga_jax.tracking.equations import PriorWeights, Unknowns
from npga_jax.tracking.head_prior import open_prior
from npga_jax.tracking.landmark_term import (
    Sightings,
    landmark_term,
    model_landmarks,
    packaged_table,
    place_landmarks,
)
from npga_jax.tracking.lid_sight import (
    LidRays,
    lid_evidence,
    meet,
    met_again,
    openness,
)
from npga_jax.tracking.lids import find_openings, lid_term
from npga_jax.tracking.monocular import usual_lens
from npga_jax.tracking.shutting import (
    LOWER_LIDS,
    UPPER_LIDS,
    shut_eyes,
    without_lids,
)
from npga_jax.tracking.terms import Head
from npga_jax.tracking.video_lids import closed_lids, lower_lids

MM = 1 / MILLIMETRES_PER_UNIT
RIGHT, LEFT = ((159, 145), (158, 153)), ((386, 374), (385, 380))
"""Landmarks of upper and lower lids about the middle of each eye."""
BROWS_AND_LIPS = [105, 334, 61, 291, 13, 14, 152]


@pytest.fixture(scope="module")
def loaded():
    return open_prior(None)


@pytest.fixture(scope="module")
def shut(loaded):
    """What shuts both eyes, the right and the left one: [3, E]."""
    rest = jnp.zeros(loaded.model.cfg.lat_dim_exp)
    geo = jnp.zeros(loaded.model.cfg.lat_dim_geo)
    prior = PriorWeights(exp=1.0 / loaded.exp_std**2)
    return np.asarray(shut_eyes(loaded.model, geo, rest, prior))


@pytest.fixture(scope="module")
def landmarks(loaded, shut):
    """Of the head at rest, and with each of the three: [4, 478, 3] millimetres."""
    model, table = loaded.model, packaged_table()
    placed = model_landmarks(model, table, np.arange(len(table.points)))
    geo, found = jnp.zeros(model.cfg.lat_dim_geo), []
    for exp in (np.zeros_like(shut[0]), *shut):
        head = Head(geo, jnp.asarray(exp), jnp.zeros(6))
        places, _, _ = place_landmarks(model.params, model.cfg, placed, head)
        found.append(np.asarray(places) / MM)
    return np.stack(found)


def gap(landmarks, pairs):
    upper, lower = np.transpose(pairs)
    return np.linalg.norm(landmarks[upper] - landmarks[lower], axis=-1).mean()


def test_the_eyes_that_were_asked_for_shut(landmarks):
    rest, both, right, left = landmarks
    for eye in (RIGHT, LEFT):
        assert gap(both, eye) < 0.7 * gap(rest, eye)
    assert gap(right, RIGHT) < 0.75 * gap(rest, RIGHT)
    assert gap(left, LEFT) < 0.75 * gap(rest, LEFT)
    assert gap(right, LEFT) > gap(left, LEFT) + 1
    assert gap(left, RIGHT) > gap(right, RIGHT) + 1


def test_the_rest_of_the_face_stays(landmarks):
    moved = np.linalg.norm(landmarks[1:] - landmarks[0], axis=-1)
    assert moved[:, BROWS_AND_LIPS].max() < 1.5


def test_landmarks_of_lids_are_left_out_and_no_others(loaded):
    table, model = packaged_table(), loaded.model
    count = len(table.points)
    term = landmark_term(
        model_landmarks(model, table, np.arange(count)),
        Sightings(
            np.zeros((2, count, 3)),
            np.broadcast_to(np.eye(3), (2, count, 3, 3)),
            np.full((2, count), 0.5),
        ),
        1.0,
    )
    rows = np.array([True, False])
    weights = np.asarray(without_lids(term, rows).frames[-1])
    assert not weights[0, [159, 145, 386, 374, 33, 263]].any()
    assert (weights[0, [*BROWS_AND_LIPS, 1, 10, 234]] == 0.5).all()
    assert (weights[1] == 0.5).all()


@pytest.fixture(scope="module")
def rays(loaded):
    """From the front to both eyes of three frames; the right is shut in the last."""
    eyes = packaged_table().points[[159, 145, 386, 374]].reshape(2, 2, 3).mean(axis=1)
    rng = np.random.default_rng(0)
    off = rng.uniform(-1, 1, (3, 2, 150, 2)) * [14 * MM, 12 * MM]
    is_eye = ((off / [11 * MM, 4 * MM]) ** 2).sum(axis=-1) < 1
    is_eye[2, 0] = False
    origins = np.zeros((3, 2, 150, 3))
    origins[..., :2] = eyes[None, :, None, :2] + off
    origins[..., 2] = eyes[None, :, None, 2] + 20 * MM
    flat = lambda x: x.reshape(3, 300, *x.shape[3:])  # noqa: E731
    down = np.broadcast_to([0.0, 0.0, -1.0], (3, 300, 3))
    known = np.arange(300) != 7
    return LidRays(
        flat(origins).astype(np.float32),
        down.astype(np.float32),
        np.zeros((3, 300), np.float32),
        flat(is_eye),
        np.broadcast_to(known, (3, 300)),
    )


@pytest.fixture(scope="module")
def at_rest(loaded):
    cfg = loaded.model.cfg
    return Unknowns(
        jnp.zeros(cfg.lat_dim_geo), jnp.zeros((3, cfg.lat_dim_exp)), jnp.zeros((3, 6))
    )


def openness_of(loaded, rays, at_rest):
    met = meet(loaded.model, rays, at_rest)
    lids = lid_evidence(rays, met, [0, 1], 1.0)
    return openness(lids, met)


def test_openness_is_of_each_eye_against_the_usual(loaded, rays, at_rest):
    found = openness_of(loaded, rays, at_rest)
    np.testing.assert_allclose(found[:2], 1.0, atol=0.35)
    assert found[2, 0] == 0 and found[2, 1] > 0.65


def test_without_pixels_eyes_are_taken_for_open(loaded, rays, at_rest):
    known = rays.known.copy()
    known[1, 20:] = False
    found = openness_of(loaded, rays._replace(known=known), at_rest)
    assert (found[1] == 1).all() and found[2, 0] == 0
    nothing = rays._replace(known=np.zeros_like(rays.known))
    met = meet(loaded.model, nothing, at_rest)
    assert lid_evidence(nothing, met, [0], 1.0) is None


def test_rays_meet_the_surface_wherever_the_pose_residual_puts_the_head(
    loaded, rays, at_rest
):
    """The same rays as seen before a pose residual meet the same places."""
    shift = jnp.array([0.0, 0, 0, 2 * MM, -1 * MM, 3 * MM])
    moved = rays._replace(origins=rays.origins - np.asarray(shift[3:]))
    posed = at_rest._replace(pose=jnp.tile(shift, (3, 1)))
    direct, by_pose = (
        meet(loaded.model, r, u) for r, u in ((rays, at_rest), (moved, posed))
    )
    both = np.asarray(direct.known & by_pose.known)
    assert both.mean() > 0.9 and not both[:, 7].any()
    apart = np.asarray(direct.places - by_pose.places)[both]
    assert np.abs(apart).max() < 0.1 * MM


def test_lids_that_shut_are_met_before_the_eye_behind_them(loaded, shut, rays, at_rest):
    met = meet(loaded.model, rays, at_rest)
    known = np.asarray(met.known)
    places = np.asarray(met.places)[known]
    openings = find_openings(places, rays.is_eye[known])
    term = lid_term(openings, met.points, rays.is_eye, known.astype(np.float32), 1.0)
    exp = jnp.asarray(np.tile(shut[0], (3, 1)))
    again = met_again(term, loaded.model, rays, at_rest._replace(exp=exp))
    points, _, weights = (np.asarray(x) for x in again.frames)
    eye = rays.is_eye & known & (weights > 0)
    ahead = points[eye][:, 2] - np.asarray(met.points)[eye][:, 2]
    assert np.median(ahead) > 0.2 * MM


def test_lids_are_closed_as_far_as_their_gap_is_smaller_than_expected():
    share = np.ones((9, 2))
    share[4], share[5], share[6, 1], share[7] = 0.0, 0.4, 0.2, 1.3
    expected = np.linspace(0.2, 0.4, 18).reshape(9, 2)  # as by a nod
    found = closed_lids(share * expected, expected)
    np.testing.assert_allclose(found, np.clip(1 - share, 0, 1), atol=1e-6)


def test_gaps_of_nothing_say_nothing():
    assert not closed_lids(np.zeros((5, 2)), np.full((5, 2), 0.3)).any()


def seen_by(camera, loaded, codes, pitch=0.0):
    """Landmarks of heads [T, 478, 2] in a camera half a metre away, and their poses."""
    model, table = loaded.model, packaged_table()
    placed = model_landmarks(model, table, np.arange(len(table.points)))
    turn = Rotation.from_euler("x", 180 + pitch, degrees=True).as_matrix()
    pose = Similarity(turn, np.array([0.0, 0, 0.6]), 1.0)
    pixels = []
    for code in codes:
        head = Head(jnp.zeros(model.cfg.lat_dim_geo), jnp.asarray(code), jnp.zeros(6))
        places, _, _ = place_landmarks(model.params, model.cfg, placed, head)
        metres = np.asarray(places) * METRES_PER_UNIT
        x, y, z = camera.K @ (metres @ turn.T + pose.translation).T
        pixels.append(np.stack([x, y], axis=-1) / z[:, None])
    return np.stack(pixels), pose


@pytest.fixture(scope="module")
def video(loaded, shut):
    """Seven frames: two with shut eyes, one with the right eye shut, one that nods."""
    camera = usual_lens(640, 480)
    codes = np.zeros((7, len(shut[0])), np.float32)
    codes[1] = codes[2] = shut[0]
    codes[3] = shut[1]
    pixels, pose = seen_by(camera, loaded, codes)
    nod, nodded = seen_by(camera, loaded, codes[:1], pitch=40)
    pixels[4] = nod[0]
    # A detector closes the gap altogether.
    pixels[1:3, np.ravel(UPPER_LIDS)] = pixels[1:3, np.ravel(LOWER_LIDS)]
    pixels[3, UPPER_LIDS[0]] = pixels[3, LOWER_LIDS[0]]
    poses = [pose] * 7
    poses[4] = nodded
    return camera, pixels, poses


def lowered(loaded, video, exp):
    camera, pixels, poses = video
    geo = jnp.zeros(loaded.model.cfg.lat_dim_geo)
    prior = PriorWeights(exp=1.0 / loaded.exp_std**2)
    return lower_lids(loaded.model, geo, exp, poses, pixels, camera, prior)


def test_lids_come_down_where_codes_left_them_up_and_nowhere_else(loaded, shut, video):
    exp = np.zeros((7, len(shut[0])), np.float32)
    exp[2] = shut[0]  # this code is shut already
    found = lowered(loaded, video, exp)
    np.testing.assert_array_equal(found[[0, 4, 5, 6]], exp[[0, 4, 5, 6]])
    scale = np.linalg.norm(shut[0])
    np.testing.assert_allclose(found[1], shut[0], atol=0.02 * scale)
    np.testing.assert_allclose(found[2], shut[0], atol=0.02 * scale)
    right = found[3] @ shut[1] / (shut[1] @ shut[1])
    assert right > 0.9
    np.testing.assert_allclose(found[3], right * shut[1], atol=0.02 * scale)


def test_never_more_than_what_shuts_the_eyes_is_added(loaded, shut, video):
    """Codes whose median has shut eyes already, and codes with eyes wide open."""
    rng = np.random.default_rng(0)
    most = np.linalg.norm(shut, axis=1).max()
    noise = 0.3 * loaded.exp_std * rng.normal(size=(7, len(shut[0])))
    for exp in (shut[0] + noise, np.tile(-shut[0], (7, 1)), noise):
        added = lowered(loaded, video, exp.astype(np.float32)) - exp
        assert np.isfinite(added).all()
        assert np.linalg.norm(added, axis=1).max() < 2 * most


def test_a_track_without_frames_stays_one(loaded, video):
    camera, pixels, _ = video
    none = np.zeros((0, loaded.model.cfg.lat_dim_exp), np.float32)
    geo = jnp.zeros(loaded.model.cfg.lat_dim_geo)
    prior = PriorWeights(exp=1.0 / loaded.exp_std**2)
    same = lower_lids(loaded.model, geo, none, [], pixels[:0], camera, prior)
    assert same.shape == none.shape
