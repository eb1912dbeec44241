"""Outlines of a painted ball before a wall, without mattes and plates."""

import numpy as np
import pytest

from npga_jax.preparation.outlines import outlines_of
from npga_jax.preparation.stereo import depth_maps
from tests.preparation.test_stereo import ANGLES, look_from, see


@pytest.fixture(scope="module")
def views():
    return [see(look_from(a), str(a), noise=0.01) for a in ANGLES]


def outlines(views):
    bare = [v._replace(matte=None) for v in views]
    return outlines_of(bare, depth_maps(bare, workers=2))


def test_outlines_are_those_of_the_ball(views):
    for view, found in zip(views, outlines(views), strict=True):
        true = view.matte > 127
        assert found.shape == true.shape
        assert (found & true).sum() / (found | true).sum() > 0.95


def test_walls_alone_are_nobody(views):
    rng = np.random.default_rng(4)
    walls = [
        v._replace(image=rng.integers(0, 255, v.image.shape, np.uint8)) for v in views
    ]
    assert not any(found.any() for found in outlines(walls))
