"""`experiments/prepare.py --steps labels` on a small tracked capture."""

import numpy as np
import pytest

from npga_jax.data import CaptureConfig, open_located, prepared_folder
from tests.scripts import run_script
from tests.synthetic_capture import write_capture
from tests.tracked_capture import write_prior, write_tracked

CAMERAS = ("222200036", "222200037")
SEQUENCES = ("EXP-1-head", "FREE")


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A capture without label maps, its prior and the cache of the tests."""
    root = tmp_path_factory.mktemp("labelling")
    capture = write_capture(
        root / "data",
        sequences=SEQUENCES,
        cameras=CAMERAS,
        num_frames=2,
        width=48,
        height=64,
        with_labels=False,
    )
    prior = root / "prior.npz"
    write_tracked(capture, write_prior(prior))
    return capture, prior, root / "cache"


def label(tracked, *options):
    capture, prior, cache = tracked
    return run_script(
        "experiments/prepare.py",
        f"--subject={capture.subject}",
        f"--data-root={capture.root}",
        f"--prior={prior}",
        f"--capture.cache-dir={cache}",
        "--capture.width=48",
        *options,
        "--steps",
        "labels",
    )


def test_maps_are_made_once_and_again_for_other_codes(tracked):
    capture, _, cache = tracked
    result = label(tracked)
    assert result.returncode == 0, result.stderr
    assert "4 files of label maps" in result.stdout
    made = prepared_folder(capture.folder, cache)
    files = sorted(made.glob("sequences/*/segmentation/*.npz"))
    assert len(files) == 4
    cfg = CaptureConfig(width=48, cache_dir=cache, driving="nphm")
    opened = open_located(capture.root, capture.subject, cfg, progress=False)
    for timestep in opened.timesteps:
        for camera in CAMERAS:
            maps = opened.labels(timestep, camera)
            assert maps is not None and maps.shape == (64, 48)
            matte = opened.alpha(timestep, camera)
            np.testing.assert_array_equal(maps == 0, matte <= 127)
    assert (made / "preparation/labels.png").exists()

    before = {p: p.stat().st_mtime_ns for p in files}
    assert "label maps" not in label(tracked).stdout
    assert {p: p.stat().st_mtime_ns for p in files} == before

    codes = capture.folder / "sequences/FREE/tracking/nphm.npz"
    codes.touch()
    assert "2 files of label maps" in label(tracked).stdout
    changed = [p for p in files if p.stat().st_mtime_ns != before[p]]
    assert {p.parts[-3] for p in changed} == {"FREE"}


def test_maps_are_as_wide_as_the_images(tracked):
    capture, _, cache = tracked
    assert "files of label maps" in label(tracked, "--capture.width=24").stdout
    made = prepared_folder(capture.folder, cache)
    with np.load(next(made.glob("sequences/FREE/segmentation/*.npz"))) as archive:
        assert archive["labels"].shape == (2, 32, 24)
    assert "4 files of label maps" in label(tracked).stdout


def test_codes_of_another_model_are_refused(tracked, tmp_path):
    assert label(tracked).returncode == 0
    other = tmp_path / "other.npz"
    write_prior(other, motion=0.05)
    result = label(tracked, f"--prior={other}", "--capture.ignore-sequences", "EXP")
    # Maps that are there stay; nothing is to be made of other codes.
    assert result.returncode == 0
    capture, _, cache = tracked
    for path in prepared_folder(capture.folder, cache).rglob("cam_*.json"):
        path.unlink()
    for path in prepared_folder(capture.folder, cache).rglob("cam_*.npz"):
        path.unlink()
    result = label(tracked, f"--prior={other}")
    assert result.returncode == 2
    assert "need codes of the head model 'nphm other" in result.stderr


def test_maps_of_some_frames_are_not_those_of_others(tracked):
    capture, prior, cache = tracked
    cache = cache.with_name("strides")
    files = prepared_folder(capture.folder, cache) / "sequences"

    def label_at(stride):
        options = (f"--capture.frame-stride={stride}",)
        assert label((capture, prior, cache), *options).returncode == 0
        return {p: p.stat().st_mtime_ns for p in files.glob("*/segmentation/*.npz")}

    def are_there():
        cfg = CaptureConfig(width=48, cache_dir=cache, driving="nphm")
        opened = open_located(capture.root, capture.subject, cfg, progress=False)
        return [
            (t.frame_id, opened.labels(t, CAMERAS[0]) is not None)
            for t in opened.timesteps
            if t.sequence == SEQUENCES[0]
        ]

    label_at(2)
    assert are_there() == [(0, True), (1, False)]
    before = label_at(1)
    assert are_there() == [(0, True), (1, True)]
    assert label_at(2) == before and len(before) == 4
