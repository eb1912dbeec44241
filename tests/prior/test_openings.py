"""What is seen of eyeballs between lids."""

import numpy as np
import pytest

from npga_jax.prior import ict
from npga_jax.prior.openings import eye_openings, seen_vertices
from npga_jax.prior.scans import EYES, FACE
from tests.prior.test_scans import SCANS, needs_scans


def masked_face(half_height=0.3):
    """A flat face with a hole for an eye, and an eyeball of points behind it.

    Returns:
      vertices [V, 3], faces [F, 3], regions [V]. The hole is 1 wide.
    """
    columns, rows = np.meshgrid(np.arange(-4, 5), np.arange(-4, 5), indexing="ij")
    grid = np.stack([columns, rows, 0 * rows], axis=-1).reshape(-1, 3).astype(float)
    index = np.arange(81).reshape(9, 9)
    a, b = index[:-1, :-1].ravel(), index[1:, :-1].ravel()
    c, d = index[1:, 1:].ravel(), index[:-1, 1:].ravel()
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    faces = faces[(faces != index[4, 4]).all(axis=1)]  # a hole in the middle
    grid[:, 1] *= half_height
    eyes = np.array([[0.0, 0.0, -0.1], [0.4, 0.05, -0.1], [0.0, 2.0, -0.1]])
    corner = len(grid) + np.arange(3)
    vertices = np.concatenate([grid, eyes])
    regions = np.array([FACE] * len(grid) + [EYES] * 3)
    return vertices, np.concatenate([faces, corner[None]]), regions


def test_the_rim_around_an_eye_is_found_and_not_that_around_the_face():
    vertices, faces, regions = masked_face()
    (loop,) = eye_openings(faces, regions, vertices)
    assert len(loop) == 6
    assert np.abs(vertices[loop][:, 0]).max() == 1


def test_what_lids_cover_is_not_seen():
    vertices, faces, regions = masked_face()
    openings = eye_openings(faces, regions, vertices)
    seen = seen_vertices(vertices, regions, openings)
    assert seen[regions == FACE].all()
    assert seen[regions == EYES].tolist() == [True, True, False]
    shut = vertices.copy()
    shut[regions == FACE, 1] = np.minimum(shut[regions == FACE, 1], -0.01)
    assert not seen_vertices(shut, regions, openings)[regions == EYES].any()


def test_heads_without_eyeballs_have_no_openings():
    vertices, faces, regions = masked_face()
    skin = regions[faces].max(axis=1) == FACE
    assert eye_openings(faces[skin], np.full(len(vertices), FACE), vertices) == ()
    assert seen_vertices(vertices, regions, ()).all()


@needs_scans
@pytest.mark.parametrize(("blink", "least", "most"), [(0.0, 0.6, 1.0), (1.0, 0, 0.15)])
def test_eyeballs_of_scans_vanish_as_lids_shut(blink, least, most):
    model = ict.load_ict(SCANS)
    scans = ict.ict_scans(model, num_identities=2, expressions_per_identity=1, seed=0)
    openings = eye_openings(scans.faces, scans.vertex_regions, scans.mean)
    assert len(openings) == 2
    weights = np.zeros((1, len(model.expression_names)), np.float32)
    for side in "LR":
        weights[0, model.expression_names.index(f"eyeBlink_{side}")] = blink
    rest = np.zeros((1, len(model.identity)), np.float32)
    # The same vertices as those of the scans, found by where the mean has them.
    whole = ict.to_nphm(model.vertices(rest, weights)[0])
    mean = ict.to_nphm(model.neutral)
    used = np.flatnonzero(ict.surface_vertices(model))
    used = used[np.isin(mean[used][:, 2], scans.mean[:, 2])]
    vertices = whole[used][: len(scans.mean)]
    assert len(vertices) == len(scans.mean)
    seen = seen_vertices(vertices, scans.vertex_regions, openings)
    share = seen[scans.vertex_regions == EYES].mean()
    assert least <= share <= most


@needs_scans
def test_no_second_sheet_of_skin_lies_behind_the_lids():
    model = ict.load_ict(SCANS)
    keep = ict.surface_vertices(model)
    assert not keep[ict._LID_RIMS].any()
    assert keep[ict.NARROW_FACE_VERTICES].mean() > 0.95
