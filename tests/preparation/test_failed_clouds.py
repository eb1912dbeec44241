"""Frames in which stereo finds too few points: tried once, then named."""

import json
import shutil

import pytest

from npga_jax.app import in_cache, making, prepare_missing
from npga_jax.data import CaptureConfig, prepared_folder
from npga_jax.preparation.cloud_records import read_checks
from tests.scripts import run_script
from tests.synthetic_capture import write_capture

CAMERAS = ("222200036", "222200037", "222200038", "222200039")


@pytest.fixture
def folder(tmp_path):
    """A ball without texture, in images that are too small for 500 points."""
    capture = write_capture(
        tmp_path / "data",
        sequences=("FREE",),
        cameras=CAMERAS,
        num_frames=2,
        width=32,
        height=48,
        with_labels=False,
    )
    shutil.rmtree(capture.folder / "sequences/FREE/pointclouds")
    return capture.folder


def clouds_of(folder, *options):
    """What `experiments/prepare.py` says of them."""
    cache = folder.parent.parent / "cache"
    result = run_script(
        "experiments/prepare.py",
        f"--subject={folder.name}",
        f"--data-root={folder.parent}",
        f"--capture.cache-dir={cache}",
        "--capture.width=32",
        "--workers=1",
        *options,
        "--steps",
        "clouds",
    )
    assert result.returncode == 0, result.stderr
    assert not list(prepared_folder(folder, cache).rglob("*.pcd"))
    return result.stdout


def is_tried(said):
    assert said.count("LOOKS WRONG  FREE frame") == 2  # They are named either way.
    assert "points that views agree on: no cloud" in said
    is_left_out = "2 frames are left out: too few points were found" in said
    assert is_left_out != ("2 clouds, " in said)
    return not is_left_out


def test_they_are_tried_again_with_other_settings_only(folder):
    assert is_tried(clouds_of(folder))
    assert not is_tried(clouds_of(folder))
    for options in (
        ("--points=1500",),
        ("--points=1500", f"--capture.ignore-cameras={CAMERAS[0]}"),
    ):
        assert is_tried(clouds_of(folder, *options))
        assert not is_tried(clouds_of(folder, *options))


@pytest.mark.parametrize(
    "name",
    [
        "sequences/FREE/alpha_maps/cam_222200036.mp4",
        "sequences/FREE/images/cam_222200037.mp4",
    ],
)
def test_they_are_tried_again_of_other_files(folder, name):
    assert is_tried(clouds_of(folder))
    (folder / name).touch()
    assert is_tried(clouds_of(folder))


def test_they_are_tried_again_with_another_calibration(folder):
    assert is_tried(clouds_of(folder))
    path = folder / "calibration/camera_params.json"
    content = json.loads(path.read_text())
    content["intrinsics"][0][2] += 0.5
    path.write_text(json.dumps(content))
    assert is_tried(clouds_of(folder))


def test_training_leaves_them_out_too(folder, monkeypatch, capsys):
    cache = folder.parent.parent / "cache"
    cfg = CaptureConfig(width=32, cache_dir=cache)
    job = in_cache(folder.parent, folder.name, cfg, workers=1)
    prepare_missing(job, ("FREE",))
    assert is_tried(capsys.readouterr().out)
    assert len(read_checks(job.output)) == 2

    def refuse(*_, **__):
        raise AssertionError("a frame is tried again")

    monkeypatch.setattr(making, "make_clouds", refuse)
    prepare_missing(job, ("FREE",))
    assert not is_tried(capsys.readouterr().out)
