from pathlib import Path

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.data.location import locate_subject
from npga_jax.data.opening import open_capture
from npga_jax.data.settings import CaptureConfig
from npga_jax.data.splits import holdout_split


@pytest.fixture(autouse=True)
def _no_data_root(monkeypatch):
    monkeypatch.delenv("NPGA_DATA", raising=False)


def test_demo_capture_opens_and_can_be_trained_on(tmp_path):
    cfg = CaptureConfig(cache_dir=tmp_path)
    capture = open_capture("demo", None, cfg, progress=False, decode=False)
    assert capture.subject == "demo"
    assert len(capture.cameras) == 8 and len(capture.timesteps) == 5 * 8 + 16
    assert (capture.width, capture.height) == (275, 401)
    split = holdout_split(capture, cfg.held_out_sequence, cfg.held_out_camera)
    assert len(split.train) == 40 and len(split.self_reenactment) == 16
    timestep = capture.timesteps[0]
    points, camera = capture.points(timestep), capture.camera(timestep, "222200037")
    uvw = (points.xyz @ camera.world2cam[:3, :3].T + camera.world2cam[:3, 3]) @ (
        camera.K.T
    )
    column, row = (uvw[:, :2] / uvw[:, 2:]).astype(int).T
    alpha = capture.alpha(timestep, "222200037")
    assert (alpha[row, column] > 127).mean() > 0.9


def test_demo_shows_no_real_person_and_says_so():
    root, _ = locate_subject("demo", None)
    readme = (root / "README.md").read_text()
    assert "ICT-FaceKit" in readme and "No real person" in readme
    assert not list(root.rglob("ground_truth"))


def test_no_data_root_names_both_ways_and_the_demo():
    with pytest.raises(InputError) as error:
        locate_subject("074", None)
    for words in ("--data-root", "NPGA_DATA", "camera_params.json", "--subject demo"):
        assert words in str(error.value)


def test_environment_is_the_default_root(written, monkeypatch):
    monkeypatch.setenv("NPGA_DATA", str(written.root))
    assert locate_subject("074", None) == (written.root.resolve(), "074")


def test_missing_zero_is_guessed(written):
    with pytest.raises(InputError, match=r"no folder .*/74\. Did you mean 074\?"):
        locate_subject("74", written.root)


def test_unknown_subject_lists_those_there_are(written):
    with pytest.raises(InputError, match=r"Subjects there: 074\.\n"):
        locate_subject("999", written.root)


def test_subject_folder_given_as_root_is_recognised(written):
    with pytest.raises(InputError, match="is a subject itself"):
        locate_subject("074", written.folder)


def test_root_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        locate_subject("074", tmp_path / "nowhere")
    with pytest.raises(InputError, match="No subject at all"):
        locate_subject("074", tmp_path)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../074", "a\\b"])
def test_paths_are_not_subjects(name, tmp_path):
    with pytest.raises(InputError, match="not a folder's name"):
        locate_subject(name, tmp_path)


def test_empty_capture_is_an_error(tmp_path):
    (tmp_path / "074").mkdir()
    with pytest.raises(InputError, match="in no layout that is read"):
        open_capture("074", Path(tmp_path), CaptureConfig(), progress=False)


def test_demo_has_a_cloud_for_every_frame(tmp_path):
    cfg = CaptureConfig(cache_dir=tmp_path)
    capture = open_capture("demo", None, cfg, progress=False, decode=False)
    counts = [len(capture.points(t).xyz) for t in capture.timesteps]
    assert np.all(np.array(counts) == 2000)
