"""Tracking by one camera: known heads are found, faces followed, gaps kept."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.core import rigid_motion
from npga_jax.core.errors import InputError
from npga_jax.io import write_video
from npga_jax.nphm import METRES_PER_UNIT
from npga_jax.tracking import faces as faces_module
from npga_jax.tracking.faces import find_faces
from npga_jax.tracking.head_prior import open_prior
from npga_jax.tracking.landmark_term import (
    model_landmarks,
    packaged_table,
    place_landmarks,
)
from npga_jax.tracking.terms import Head
from npga_jax.tracking.video import chosen_landmarks, fit_faces
from tests.tracking.made_up_video import made_up_video


def test_landmarks_that_expressions_move_are_fitted():
    table = packaged_table()
    used = chosen_landmarks(table)
    assert len(used) == len(set(used.tolist())) == 140
    assert {13, 14, 159, 145, 386, 374, 61, 291} <= set(used.tolist())
    # The outline of the cheeks lies wherever the head is seen to end.
    assert not {234, 454, 132, 361} & set(used.tolist())


def test_a_known_head_is_found():
    loaded = open_prior(None)
    video = made_up_video(loaded, 6, seed=0)
    track = fit_faces(video.faces, loaded, smooth=False, progress=False)
    assert track.frame_id.tolist() == list(range(6)) and not len(track.failed)
    assert np.median(track.error_mm) < 0.5
    model = loaded.model._replace(params=jax.tree.map(jnp.asarray, loaded.model.params))
    landmarks = model_landmarks(model, packaged_table(), np.arange(478))
    apart, turned = [], []
    for i, pose in enumerate(track.poses):
        head = Head(
            jnp.asarray(track.unknowns.geo),
            jnp.asarray(track.unknowns.exp[i]),
            jnp.zeros(6),
        )
        places, _, _ = place_landmarks(model.params, model.cfg, landmarks, head)
        found = METRES_PER_UNIT * np.asarray(places + landmarks.offsets, np.float64)
        rotation, shift = rigid_motion(found, video.points[i])
        off = np.linalg.norm(found @ rotation.T + shift - video.points[i], axis=1)
        apart.append(np.median(off))
        cosine = (np.trace(rotation @ pose.rotation.T) - 1) / 2
        turned.append(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    # Shapes agree; and so does where the head looks.
    assert 1000 * np.median(apart) < 1.5
    assert np.median(turned) < 3


def fake_detector(monkeypatch, found):
    """Puts faces into a video's frames, one list for each."""

    class Detector:
        def __init__(self):
            self.count = -1

        def find_all(self, image):
            self.count += 1
            return found[self.count]

    @contextlib.contextmanager
    def opened(model, *, num_faces=1):
        yield Detector()

    monkeypatch.setattr(faces_module, "open_detector", opened)


def grey_video(path, count):
    write_video(path, (np.full((48, 64, 3), 120, np.uint8) for _ in range(count)), 24)
    return path


def square_face(x, y, size):
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (478, 2))
    return (points * size + [x, y]).astype(np.float32)


def test_one_face_is_followed_and_lost_frames_are_gaps(monkeypatch, tmp_path):
    near, far = square_face(0.3, 0.5, 0.4), square_face(0.8, 0.4, 0.2)
    moved = near + np.float32(0.02)
    found = [[far, near], [moved, far], [], [far], [far, moved], [moved]]
    fake_detector(monkeypatch, found)
    video = grey_video(tmp_path / "a.mp4", 6)
    faces = find_faces(video, tmp_path / "m.task", progress=False)
    assert (faces.num_frames, faces.num_crowded) == (6, 3)
    assert (faces.width, faces.height) == (64, 48)
    # The largest at first; alone it may have moved; among others the nearest.
    assert faces.frame_id.tolist() == [0, 1, 3, 4, 5]
    np.testing.assert_allclose(faces.pixels[0], near * [64, 48], rtol=1e-6)
    np.testing.assert_allclose(faces.pixels[1], moved * [64, 48], rtol=1e-6)


def test_a_video_without_a_face_is_refused(monkeypatch, tmp_path):
    fake_detector(monkeypatch, [[]] * 3)
    video = grey_video(tmp_path / "a.mp4", 3)
    with pytest.raises(InputError, match="no face was found in any of its 3 frames"):
        find_faces(video, tmp_path / "m.task", progress=False)
