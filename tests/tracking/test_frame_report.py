"""How well frames were fitted, in millimetres of the world."""

import numpy as np
import pytest

from npga_jax.data.capture import Timestep
from npga_jax.tracking.alignment import Similarity
from npga_jax.tracking.equations import Unknowns
from npga_jax.tracking.frame_report import frame_fits
from npga_jax.tracking.gathering import Frame
from tests.small_head_model import make_model


def test_a_larger_head_has_larger_distances():
    """The same place seen from the head is twice as far away in the world."""
    model = make_model()
    cfg = model.cfg
    unknowns = Unknowns(
        np.zeros(cfg.lat_dim_geo), np.zeros((2, cfg.lat_dim_exp)), np.zeros((2, 6))
    )
    points = np.random.default_rng(0).normal(size=(60, 3)) * 0.1
    small, large = frame_fits(
        model,
        unknowns,
        [
            Frame(Timestep(i, "SEQ", i), None, (i + 1) * points, 600, None, None)
            for i in range(2)
        ],
        [Similarity(np.eye(3), np.zeros(3), scale) for scale in (1.0, 2.0)],
    )
    assert small.median_mm > 0 and small.num_points == 600
    assert large.median_mm == pytest.approx(2 * small.median_mm)
    assert large.p90_mm == pytest.approx(2 * small.p90_mm)
