"""A ball as a person, and settings that distil its F in seconds."""

import functools
from unittest import mock

import numpy as np

from npga_jax.distillation import distill as module
from npga_jax.distillation.distill import DistillOptions, distill
from npga_jax.distillation.person import Person
from npga_jax.distillation.sampling import make_domain
from tests.small_head_model import BALL, make_ball

OPTIONS = DistillOptions(
    hidden=32, layers=2, octaves=2, steps=300, num_points=128, num_codes=4
)
NUM_FEATURES = 3
CODES = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
HELD_OUT = (0.6 * CODES[:3] + 0.4 * CODES[3:6]).astype(np.float32)
"""Mixes, as a held-out sequence has them: nothing beyond what was seen."""


def make_person(motion: float = 0.06) -> Person:
    """A head of 35 cm whose points move by a few millimetres."""
    geo = np.full(BALL.lat_dim_geo, 0.3, np.float32)
    return Person(make_ball(motion), geo, np.ones(BALL.lat_dim_exp, np.float32))


@functools.cache
def distilled():
    """F of the ball, where it was compared, and the ball's backward field."""
    person = make_person()
    # A ball needs no fine mesh.
    domain, backward = make_domain(person, CODES, resolution=40)
    with mock.patch.object(module, "make_domain", lambda *_: (domain, backward)):
        params, _ = distill(
            person, CODES, num_features=NUM_FEATURES, options=OPTIONS, progress=False
        )
    return params, domain, backward
