"""`experiments/prepare.py --landmarks`, with a stand-in for mediapipe."""

import sys

import numpy as np
import pytest
from PIL import Image

from npga_jax.core import InputError
from npga_jax.data import (
    NUM_LANDMARKS,
    CaptureConfig,
    open_located,
    prepared_folder,
)
from npga_jax.preparation import FaceCheck, wrong_faces
from tests import made_up_faces
from tests.scripts import run_script
from tests.synthetic_capture import write_capture

CAMERAS = ("222200036", "222200037", "222200038")
SEQUENCES = ("EXP-1-head", "FREE")
FILE = "landmarks/face.npz"


@pytest.fixture
def subject(tmp_path):
    return write_capture(
        tmp_path / "data",
        sequences=SEQUENCES,
        cameras=CAMERAS,
        num_frames=2,
        width=96,
        height=144,
        with_labels=False,
    )


@pytest.fixture
def model(tmp_path):
    return made_up_faces.write_model(tmp_path / "face_landmarker.task")


def find(subject, model, *options, steps=("landmarks",)):
    return run_script(
        "experiments/prepare.py",
        f"--subject={subject.subject}",
        f"--data-root={subject.root}",
        f"--capture.cache-dir={subject.root.parent / 'cache'}",
        *([f"--landmarks={model}"] if model else []),
        *options,
        *(["--steps", *steps] if steps else []),
    )


def made_of(subject):
    return prepared_folder(subject.folder, subject.root.parent / "cache")


def files_of(subject):
    return {p: p.stat().st_mtime_ns for p in made_of(subject).rglob("face.npz")}


def opened(subject, width=96):
    cfg = CaptureConfig(width=width, cache_dir=subject.root.parent / "cache")
    return open_located(
        subject.root, subject.subject, cfg, progress=False, decode=False
    )


def test_landmarks_are_found_once_and_read_at_any_width(subject, model, monkeypatch):
    made_up_faces.install(monkeypatch)
    assert opened(subject).landmarks(opened(subject).timesteps[0]) is None
    result = find(subject, model)
    assert result.returncode == 0, result.stderr
    assert "landmarks of 4 frames, a face in 100% of the images" in result.stdout
    assert "LOOKS WRONG" not in result.stdout
    assert not list(subject.folder.rglob("face.npz"))
    for width in (96, 48):
        capture = opened(subject, width)
        for timestep in capture.timesteps:
            truth = subject.world_from_head[timestep.sequence][timestep.frame_id]
            found = capture.landmarks(timestep)
            assert found.points.shape == (NUM_LANDMARKS, 3)
            middle = np.median(found.points, axis=0)
            np.testing.assert_allclose(middle, truth[:3, 3], atol=0.003)
            assert np.median(found.agreeing) == 3 and found.error.max() < 3
    with np.load(made_of(subject) / "sequences/FREE" / FILE) as file:
        assert file["cameras"].tolist() == list(CAMERAS)
        assert file["image_points"].shape == (2, 3, NUM_LANDMARKS, 2)
        assert file["image_points"].dtype == np.float32
        assert file["seen"].dtype == bool and file["seen"].all()
        assert file["frame_id"].tolist() == [0, 1]
    with Image.open(made_of(subject) / "preparation/landmarks.png") as sheet:
        assert sheet.width == 160 * len(CAMERAS)

    before = files_of(subject)
    again = find(subject, model)
    assert "2 of 2 sequences have landmarks: kept" in again.stdout
    assert files_of(subject) == before
    model.touch()  # Another model, other landmarks.
    find(subject, model)
    assert all(files_of(subject)[path] > before[path] for path in before)


def test_what_is_interrupted_goes_on(subject, model, monkeypatch):
    shown = []

    def stop(image):
        shown.append(image)
        if len(shown) == 9:  # In the second sequence.
            raise KeyboardInterrupt

    made_up_faces.install(monkeypatch, stop)
    assert find(subject, model).returncode == 130
    (first,) = files_of(subject).items()
    assert first[0].parts[-3] == "EXP-1-head"
    assert not list(made_of(subject).rglob("*.part"))
    result = find(subject, model)
    assert "landmarks of 2 frames" in result.stdout and len(shown) == 9 + 6
    assert len(files_of(subject)) == 2 and first in files_of(subject).items()


def test_frames_without_a_face_are_named(subject, model, monkeypatch):
    made_up_faces.install(monkeypatch, lambda image: image.fill(200))
    result = find(subject, model)
    assert result.returncode == 0, result.stderr
    named = [s for s in result.stdout.splitlines() if s.startswith("LOOKS WRONG")]
    assert len(named) == 4 and all(
        "a face is found in no camera of 3" in s for s in named
    )
    found = opened(subject).landmarks(opened(subject).timesteps[0])
    assert not found.points.any() and not found.agreeing.any()


def test_why_a_frame_looks_wrong():
    checks = [FaceCheck(i, v, 9, k) for i, v, k in ((0, 9, 470), (1, 1, 0), (2, 5, 99))]
    assert wrong_faces(checks) == {
        1: "a face is found in one camera only of 9",
        2: "cameras agree on 99 of 478 landmarks",
    }


def write_own(subject, **changes):
    path = subject.folder / "sequences/FREE" / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        "frame_id": np.array([1]),
        "points": np.full((1, NUM_LANDMARKS, 3), 0.5, np.float32),
        "agreeing": np.full((1, NUM_LANDMARKS), 2, np.uint8),
        "error": np.ones((1, NUM_LANDMARKS), np.float32),
    } | changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def test_landmarks_of_ones_own_are_kept_and_come_first(subject, model, monkeypatch):
    made_up_faces.install(monkeypatch)
    own = write_own(subject)
    before = own.read_bytes()
    result = find(subject, model)
    assert "1 of 2 sequences have landmarks: kept" in result.stdout
    assert own.read_bytes() == before and len(files_of(subject)) == 1
    capture = opened(subject)
    first, second = (t for t in capture.timesteps if t.sequence == "FREE")
    assert capture.landmarks(first) is None
    assert set(capture.landmarks(second).agreeing) == {2}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"points": None}, "lacks points"),
        ({"points": np.zeros((1, 68, 3), np.float32)}, r"points \(1, 68, 3\)"),
        ({"error": np.full((1, NUM_LANDMARKS), np.nan)}, "expected .* finite"),
        ({"frame_id": np.array(["a"])}, "expected .* integers"),
        ({"agreeing": np.array([None])}, "agreeing.*numbers or text"),
    ],
)
def test_files_that_are_no_landmarks_are_refused(subject, changes, said):
    write_own(subject, **changes)
    capture = opened(subject)
    with pytest.raises(InputError, match=said):
        capture.landmarks(capture.timesteps[-1])


def test_no_mediapipe_no_model_or_a_wrong_one(subject, model, tmp_path, monkeypatch):
    def says(result, *words):
        assert result.returncode == 2 and "Traceback" not in result.stderr
        assert all(word in result.stderr for word in words), result.stderr

    monkeypatch.setitem(sys.modules, "mediapipe", None)
    says(find(subject, model), "needs mediapipe", "pip install")
    made_up_faces.install(monkeypatch)
    says(find(subject, tmp_path / "none.task"), "none.task: there is no such file")
    says(find(subject, tmp_path), "expected a model", "face_landmarker.task")
    other = tmp_path / "other.task"
    other.write_bytes(b"something else")
    says(find(subject, other), "other.task is no model", "zip archive")
    says(find(subject, None), "--landmarks face_landmarker.task")
    says(find(subject, model, steps=("clouds",)), "does nothing")
    assert not made_of(subject).exists()
