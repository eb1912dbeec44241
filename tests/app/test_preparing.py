"""What training makes of a raw capture before it trains, and what it leaves alone."""

import dataclasses
import shutil
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

from npga_jax.app import in_cache, preparing
from npga_jax.app import job as jobs
from npga_jax.core import InputError
from npga_jax.data import CaptureConfig, open_located
from tests.synthetic_capture import BACKGROUND, write_capture
from tests.tracked_capture import write_prior, write_tracked

CAMERAS = ("222200036", "222200037", "222200038")
SEQUENCES = ("EXP-1-head", "FREE")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_capture(
        tmp_path_factory.mktemp("prepared"),
        sequences=SEQUENCES,
        cameras=CAMERAS,
        num_frames=2,
        width=32,
        height=48,
        with_labels=False,
    )


@pytest.fixture
def folder(prepared, tmp_path):
    target = tmp_path / "data" / prepared.subject
    shutil.copytree(prepared.folder, target)
    return target


@pytest.fixture
def job(folder, tmp_path):
    cfg = CaptureConfig(width=32, cache_dir=tmp_path / "cache")
    return in_cache(folder.parent, folder.name, cfg)


@pytest.fixture
def made(monkeypatch):
    """Which steps were asked for, instead of their work."""
    calls: list = []
    monkeypatch.setattr(preparing, "make_mattes", lambda job: calls.append("mattes"))
    monkeypatch.setattr(
        preparing,
        "make_missing_clouds",
        lambda job, lacking: calls.append(
            sorted((t.sequence, t.frame_id) for t in lacking)
        ),
    )
    return calls


def write_plates(folder):
    plates = folder / "sequences" / "BACKGROUND"
    plates.mkdir()
    color = np.broadcast_to(np.uint8(BACKGROUND), (48, 32, 3))
    for camera in CAMERAS:
        Image.fromarray(color).save(plates / f"image_{camera}.png")


def remove(folder, kind, sequences=SEQUENCES):
    for sequence in sequences:
        shutil.rmtree(folder / "sequences" / sequence / kind)


def test_a_whole_capture_is_left_alone(job, made):
    assert preparing.prepare_missing(job, SEQUENCES) == {}
    assert made == []


def test_mattes_are_made_where_there_are_plates(job, folder, made):
    remove(folder, "alpha_maps")
    # Without plates, of what stereo finds.
    assert set(preparing.prepare_missing(job, ())) == {"mattes"}
    write_plates(folder)
    assert set(preparing.prepare_missing(job, ())) == {"mattes"}
    assert made == ["mattes", "mattes"]
    without = CaptureConfig(width=32, cache_dir=job.capture.cache_dir, mattes=False)
    other = in_cache(folder.parent, folder.name, without)
    assert preparing.prepare_missing(other, ()) == {}


def test_clouds_are_made_for_sequences_to_track_that_have_none(job, folder, made):
    remove(folder, "pointclouds", SEQUENCES[:1])
    assert preparing.prepare_missing(job, SEQUENCES[1:]) == {}
    assert set(preparing.prepare_missing(job, SEQUENCES)) == {"clouds"}
    assert made == [[(SEQUENCES[0], 0), (SEQUENCES[0], 1)]]


def test_without_mattes_or_with_two_cameras_there_is_no_stereo(job, folder, made):
    remove(folder, "pointclouds")
    few = CaptureConfig(
        width=32, cache_dir=job.capture.cache_dir, ignore_cameras=CAMERAS[:1]
    )
    other = in_cache(folder.parent, folder.name, few)
    assert preparing.prepare_missing(other, SEQUENCES) == {}
    remove(folder, "alpha_maps")
    assert preparing.prepare_missing(other, SEQUENCES) == {}
    assert made == []


def test_label_maps_lack_where_codes_are_ours(job, folder, prepared, tmp_path):
    def lacks(cfg):
        opened = open_located(
            folder.parent, folder.name, cfg, progress=False, decode=False
        )
        return preparing.lacks_labels(job_with_prior, opened)

    job_with_prior = in_cache(
        folder.parent, folder.name, job.capture, prior=tmp_path / "prior.npz"
    )
    assert not lacks(job.capture)  # Codes of another tracker.
    model = write_prior(tmp_path / "prior.npz")
    copied = dataclasses.replace(prepared, folder=folder)
    for sequence in SEQUENCES:
        (folder / "sequences" / sequence / "tracking/blendshapes.npz").unlink()
    write_tracked(copied, model)
    assert lacks(job.capture)


def test_a_disk_that_is_too_small_is_said_before(monkeypatch, tmp_path, capsys):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(jobs.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 10**6))
    jobs.check_disk(tmp_path / "there", "mattes", 10**5)
    assert "mattes: about 0.1 MB in" in capsys.readouterr().err
    with pytest.raises(
        InputError, match=r"clouds take about 9\.0 MB, but only 1\.0 MB"
    ):
        jobs.check_disk(tmp_path / "there", "clouds", 9 * 10**6)
