"""Reading many clouds: what is kept, and how much of it."""

import tracemalloc

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.data.capture import PointCloud, Timestep
from npga_jax.tracking.gathering import gather_frames
from npga_jax.tracking.options import TrackingOptions
from tests.small_head_model import make_model
from tests.tracking.made_up_clouds import MadeUpClouds

OPTIONS = TrackingOptions(points=150)


@pytest.fixture(scope="module")
def model():
    return make_model()


def test_memory_holds_draws_and_not_clouds(model):
    capture = MadeUpClouds(num_frames=60, num_points=20_000)
    tracemalloc.start()
    try:
        frames, without = gather_frames(capture, model, ("SEQ",), OPTIONS)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(frames) == 60 and not without
    assert {frame.num_points for frame in frames} == {20_000}
    clouds = 60 * 20_000 * 36  # bytes of positions, normals and colours
    assert kept < 0.2 * clouds and peak < 0.4 * clouds


def test_the_fit_and_its_report_have_draws_of_their_own(model):
    capture = MadeUpClouds(num_frames=3, num_points=20_000)
    frames, _ = gather_frames(capture, model, ("SEQ",), OPTIONS)
    again, _ = gather_frames(capture, model, ("SEQ",), OPTIONS)
    rng = np.random.default_rng(OPTIONS.seed)
    for frame, same in zip(frames, again, strict=True):
        cloud = capture.points(frame.timestep)
        # As if all clouds had been kept, and drawn from in the end.
        rows = rng.choice(20_000, OPTIONS.points, replace=False)
        np.testing.assert_array_equal(frame.points.xyz, cloud.xyz[rows])
        np.testing.assert_array_equal(frame.points.normals, cloud.normals[rows])
        np.testing.assert_array_equal(frame.points.rgb, cloud.rgb[rows])
        np.testing.assert_array_equal(frame.judged, same.judged)
        judged, known = (set(map(tuple, x)) for x in (frame.judged, cloud.xyz))
        assert OPTIONS.points < len(judged) < 20_000 and judged < known
        assert not set(map(tuple, frame.points.xyz)) >= judged


def test_frames_without_enough_skin_are_named(model):
    capture = MadeUpClouds(num_frames=3, num_points=300)
    clouds = {0: None, 1: PointCloud(*(np.zeros((9, 3), np.float32),) * 3)}
    full = capture.points
    capture.points = lambda t: clouds.get(t.index, full(t))
    frames, without = gather_frames(capture, model, ("SEQ",), OPTIONS)
    assert [f.timestep.index for f in frames] == [2]
    assert without == [Timestep(0, "SEQ", 0), Timestep(1, "SEQ", 1)]
    capture.points = lambda _: None
    with pytest.raises(InputError, match="subject made-up: no frame of SEQ has a"):
        gather_frames(capture, model, ("SEQ",), OPTIONS)
