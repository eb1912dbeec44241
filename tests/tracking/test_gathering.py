"""Reading many clouds: what is kept, and how much of it."""

import tracemalloc

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.data import segmentation
from npga_jax.data.capture import PointCloud, Timestep
from npga_jax.tracking.alignment import Similarity
from npga_jax.tracking.clouds import FaceRegion, SkinPoints
from npga_jax.tracking.gathering import gather_frames
from npga_jax.tracking.options import TrackingOptions
from npga_jax.tracking.template import packaged_template
from tests.small_head_model import make_model
from tests.tracking.made_up_clouds import MadeUpClouds

OPTIONS = TrackingOptions(points=150)


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture
def all_face(monkeypatch):
    """Half an ellipsoid has no face; here all of it counts as one."""
    monkeypatch.setattr(FaceRegion, "of", lambda _, points, pose: points)


def test_without_label_maps_points_about_the_face_are_kept():
    template = packaged_template()
    turn = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    pose = Similarity(turn, np.array([0.1, 0.2, 0.3]), 1.05)
    middles = template.vertices[template.faces].mean(axis=1)
    world = 1.05 * 0.25 * middles @ turn.T + pose.translation
    points = SkinPoints(
        world.astype(np.float32), np.zeros_like(world), np.zeros_like(world), False
    )
    kept = FaceRegion(template).of(points, pose)
    is_kept = np.isin(world.astype(np.float32)[:, 0], kept.xyz[:, 0])
    is_face = template.labels == segmentation.FACE
    assert is_kept[is_face].mean() > 0.95
    assert is_kept[~is_face].mean() < 0.05
    far = points._replace(xyz=points.xyz + 0.1)
    assert len(FaceRegion(template).of(far, pose).xyz) < 0.3 * len(kept.xyz)


def test_memory_holds_draws_and_not_clouds(model, all_face):
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


def test_the_fit_and_its_report_have_draws_of_their_own(model, all_face):
    capture = MadeUpClouds(num_frames=3, num_points=20_000)
    frames, _ = gather_frames(capture, model, ("SEQ",), OPTIONS)
    again, _ = gather_frames(capture, model, ("SEQ",), OPTIONS)
    rng = np.random.default_rng(OPTIONS.seed)
    for frame, same in zip(frames, again, strict=True):
        cloud = capture.points(frame.timestep)
        # As if all clouds had been kept, and drawn from in the end: once to find the
        # head, and once of its face.
        rng.choice(20_000, OPTIONS.points, replace=False)
        rows = rng.choice(20_000, OPTIONS.points, replace=False)
        np.testing.assert_array_equal(frame.points.xyz, cloud.xyz[rows])
        np.testing.assert_array_equal(frame.points.normals, cloud.normals[rows])
        np.testing.assert_array_equal(frame.points.rgb, cloud.rgb[rows])
        np.testing.assert_array_equal(frame.judged, same.judged)
        judged, known = (set(map(tuple, x)) for x in (frame.judged, cloud.xyz))
        assert OPTIONS.points < len(judged) < 20_000 and judged < known
        assert not set(map(tuple, frame.points.xyz)) >= judged


def test_frames_without_enough_skin_are_named(model, all_face):
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
