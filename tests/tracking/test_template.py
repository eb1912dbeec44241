"""The labelled template: its parts, and that it follows the packaged head model."""

from pathlib import Path

import numpy as np
import pytest

from npga_jax.data import segmentation
from npga_jax.tracking.head_prior import open_prior
from npga_jax.tracking.template import (
    fill_openings,
    fit_template,
    packaged_template,
    pose_template,
)

SCANS = Path(__file__).parents[3] / "shared" / "scans" / "ict_facekit_light.npz"
MM = 250.0  # of a NPHM unit


@pytest.fixture(scope="module")
def template():
    return packaged_template()


@pytest.fixture(scope="module")
def prior():
    return open_prior(None)


@pytest.fixture(scope="module")
def canonical(template, prior):
    return fit_template(template, prior.model, np.zeros(prior.model.cfg.lat_dim_geo))


@pytest.mark.skipif(not SCANS.exists(), reason="needs ../shared/scans")
def test_the_packaged_one_is_what_the_scans_give(template):
    from npga_jax.prior import ict_template, load_ict

    made = ict_template(load_ict(SCANS))
    np.testing.assert_allclose(template.vertices, made.vertices, atol=5e-4)  # float16
    for name in ("faces", "labels", "rim_labels", "leaders", "guides"):
        np.testing.assert_array_equal(getattr(template, name), getattr(made, name))
    for ours, theirs in zip(template.rims, made.rims, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_parts_lie_where_a_head_has_them(template):
    middles = template.vertices[template.faces].mean(axis=1)
    place = {
        label: middles[template.labels == label].mean(axis=0)
        for label in np.unique(template.labels)
    }
    right, left = segmentation.EARS
    assert place[right][0] < -0.2 and place[left][0] > 0.2
    assert place[segmentation.HAIR][1] > place[segmentation.FACE][1]
    assert place[segmentation.NECK][1] < place[segmentation.FACE][1] - 0.2
    assert place[segmentation.FACE][2] > place[segmentation.HAIR][2]
    eyes = {
        label: template.vertices[rim].mean(axis=0)
        for rim, label in zip(template.rims, template.rim_labels, strict=True)
    }
    assert eyes[segmentation.EYES[0]][0] < -0.08  # The subject's right.
    assert eyes[segmentation.EYES[1]][0] > 0.08
    assert eyes[segmentation.INNER_MOUTH][1] < eyes[segmentation.EYES[0]][1] - 0.2


def test_rims_are_walks_along_open_edges_and_are_filled_without_a_hole(template):
    _, faces, labels = fill_openings(template, template.vertices)
    for rim in template.rims:
        edges = np.sort(np.stack([rim, np.roll(rim, -1)], axis=1), axis=1)
        for mesh, count in ((template.faces, 1), (faces, 2)):
            sides = np.sort(
                np.concatenate([mesh[:, [0, 1]], mesh[:, [1, 2]], mesh[:, [2, 0]]]),
                axis=1,
            )
            for edge in edges:
                assert (sides == edge).all(axis=1).sum() == count
    assert len(labels) == len(faces)
    assert set(template.rim_labels) <= set(labels)


def test_the_mean_head_is_fitted_to_a_millimetre(template, canonical):
    moved = np.linalg.norm(canonical - template.vertices, axis=1) * MM
    face = np.unique(template.faces[template.labels == segmentation.FACE])
    assert np.median(moved[face]) < 1.0
    assert np.quantile(moved[face], 0.95) < 4.0


def test_without_an_expression_it_stays(template, prior, canonical):
    cfg = prior.model.cfg
    posed = pose_template(
        template, canonical, prior.model, np.zeros(cfg.lat_dim_geo),
        np.zeros(cfg.lat_dim_exp),
    )  # fmt: skip
    assert np.median(np.linalg.norm(posed - canonical, axis=1)) * MM < 0.5


def test_lips_part_where_they_meet(template, prior, canonical):
    """A code that opens the mouth wide moves each lip's rim with its own lip."""
    rim = template.rims[-1]
    middle = np.abs(canonical[rim, 0]) < 0.03
    upper = rim[middle & (template.vertices[rim, 1] > -0.197)]
    lower = rim[middle & (template.vertices[rim, 1] <= -0.197)]

    def opened(exp):
        identity = np.zeros(prior.model.cfg.lat_dim_geo)
        posed = pose_template(template, canonical, prior.model, identity, exp)
        chin = posed[template.guides[lower], 1].mean()
        return posed, posed[template.guides[upper], 1].mean() - chin

    at_rest = np.diff(
        [canonical[template.guides[v], 1].mean() for v in (lower, upper)]
    )[0]
    # Which of the first codes move the jaw, and which way, is the prior's choice.
    exp = np.zeros(prior.model.cfg.lat_dim_exp, np.float32)
    for code in range(4):
        one = np.zeros_like(exp)
        one[code] = 2.5 * prior.exp_std[code]
        exp += one if opened(one)[1] > opened(-one)[1] else -one
    best, gap = opened(exp)
    assert (gap - at_rest) * MM > 10  # Some code opens it by a centimetre or more.
    # All of the rim parts: none of the lower lip's stays up with the upper one.
    assert best[lower, 1].max() * MM < best[upper, 1].min() * MM - 5
