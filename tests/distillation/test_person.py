"""Whose head F is made of: the identity that all tracked sequences share."""

import types
from pathlib import Path

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.distillation.person import open_person
from tests.small_head_model import BALL
from tests.synthetic_capture import write_driving
from tests.tracked_capture import write_prior


def write_codes(path: Path, model: str, z_id: np.ndarray) -> None:
    write_driving(
        path,
        expr=np.zeros((2, BALL.lat_dim_exp)),
        expr_names=None,
        world_from_head=np.tile(np.eye(4), (2, 1, 1)),
        model=model,
        z_id=z_id,
    )


@pytest.fixture
def capture(tmp_path):
    """What is asked of a capture: two sequences, tracked together."""
    model = write_prior(tmp_path / "prior.npz")
    geo = np.full(BALL.lat_dim_geo, 0.25, np.float32)
    paths = {name: tmp_path / f"{name}.npz" for name in ("EXP", "FREE")}
    for path in paths.values():
        write_codes(path, model, geo)
    return types.SimpleNamespace(
        subject="074", driving_model=model, driving_paths=paths
    )


def test_the_identity_is_that_of_all_sequences(capture, tmp_path):
    person = open_person(capture, tmp_path / "prior.npz")
    assert person is not None
    np.testing.assert_array_equal(person.geo, 0.25)


def test_sequences_of_two_identities_are_refused(capture, tmp_path):
    geo = np.full(BALL.lat_dim_geo, 0.5, np.float32)
    write_codes(capture.driving_paths["FREE"], capture.driving_model, geo)
    with pytest.raises(InputError, match=r"FREE\.npz has another identity .*EXP\.npz"):
        open_person(capture, tmp_path / "prior.npz")


@pytest.mark.parametrize("what", ["object", "bytes"])
def test_an_identity_that_cannot_be_read_is_a_sentence(capture, tmp_path, what):
    path = capture.driving_paths["FREE"]
    if what == "object":
        write_codes(path, capture.driving_model, np.array([None, 1]))
    else:
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match=r"FREE\.npz"):
        open_person(capture, tmp_path / "prior.npz")
