"""`experiments/prepare.py` once more: own files that came since, other strides."""

import json
import shutil

import numpy as np
import pytest

from npga_jax.app import in_cache, prepare_missing
from npga_jax.core import InputError
from npga_jax.data import CaptureConfig, open_located
from tests.preparation.raw_capture import (
    CACHE,
    CAMERAS,
    WIDTH,
    made_of,
    mattes_in,
    open_prepared,
    prepare,
)

OWN = {
    "alpha_maps/cam_222200036.mp4": "alpha_maps/cam_222200036.mp4",
    "pointclouds/frame_00001.pcd": "pointclouds/frame_1.pcd",
    "segmentation/cam_222200037.npz": "segmentation/cam_222200037.NPZ",
    "tracking/nphm.npz": "tracking/nphm.npz",
    "landmarks/face.npz": "landmarks/face.npz",
}
"""Files of FREE as they are made, and what the user calls them."""


@pytest.mark.parametrize("can_link", [True, False])
def test_own_files_that_come_later_come_first(
    raw, truth, tmp_path, can_link, monkeypatch
):
    if not can_link:
        monkeypatch.setattr("os.symlink", refuse)
    shutil.rmtree(raw / "sequences/FREE/pointclouds")
    options = (f"--output={tmp_path / 'out'}",)
    assert prepare(raw, *options, steps=("mattes",)).returncode == 0
    place = tmp_path / "out" / raw.name / "sequences/FREE"
    for made in OWN:
        if not made.startswith("alpha"):  # As later steps would leave them.
            (place / made).parent.mkdir(exist_ok=True)
            (place / made).write_bytes(b"made " + made.encode())
    before = {made: (place / made).read_bytes() for made in OWN}
    others = [p for p in mattes_in(place.parents[1]) if p != place / next(iter(OWN))]
    times = [p.stat().st_mtime_ns for p in others]
    for made, own in OWN.items():
        target = raw / "sequences/FREE" / own
        target.parent.mkdir(exist_ok=True)
        source = truth.folder / "sequences/FREE" / made
        if made.startswith("segmentation"):
            with target.open("wb") as file:
                np.savez(file, labels=np.zeros((3, 9, 6), np.uint8))
        elif source.exists():
            shutil.copyfile(source, target)
        else:
            target.write_bytes(b"own " + own.encode())
    result = prepare(raw, *options, steps=("mattes",))
    assert result.returncode == 0, result.stderr
    assert "5 files of your own take the place of those in" in result.stdout
    assert "1 of 4 videos have mattes of your own: kept" in result.stdout
    replaced = place.parents[1] / "preparation/replaced/sequences/FREE"
    for made, own in OWN.items():
        content = (raw / "sequences/FREE" / own).read_bytes()
        assert (place / own).read_bytes() == content
        assert (replaced / made).read_bytes() == before[made]
        assert made == own or not (place / made).exists()
    assert not list(place.parents[1].glob(f"preparation/*/FREE/cam_{CAMERAS[0]}.*"))
    assert len(others) == 3 and [p.stat().st_mtime_ns for p in others] == times
    # Once more, there is nothing left to do.
    result = prepare(raw, *options, steps=("mattes",))
    assert "take the place" not in result.stdout and result.returncode == 0


def refuse(*_, **__):
    raise OSError(1, "Operation not permitted")


def test_own_files_that_come_later_come_before_the_cache(raw, truth):
    assert prepare(raw, steps=("mattes",)).returncode == 0
    name = f"sequences/FREE/alpha_maps/cam_{CAMERAS[0]}.mp4"
    (raw / name).parent.mkdir()
    shutil.copyfile(truth.folder / name, raw / name)
    (raw / "sequences/BACKGROUND" / f"image_{CAMERAS[0]}.jpg").touch()
    made = (made_of(raw) / name).stat().st_mtime_ns
    result = prepare(raw, steps=("mattes",))
    assert "1 of 4 videos have mattes of your own: kept" in result.stdout
    # What it replaces is not made again for another plate.
    assert (made_of(raw) / name).stat().st_mtime_ns == made


def check_mattes(raw, truth, tmp_path, stride):
    """All frames of a stride have the true mattes, those of FREE too."""
    cache = raw.parent.parent / CACHE
    cfg = CaptureConfig(width=WIDTH, cache_dir=cache, frame_stride=stride)
    made = open_located(raw.parent, raw.name, cfg, progress=False, need_driving=False)
    true = open_prepared(truth.root, truth.subject, tmp_path / "cache")
    for timestep in made.timesteps:
        moment = (timestep.sequence, timestep.frame_id)
        (other,) = (t for t in true.timesteps if (t.sequence, t.frame_id) == moment)
        for camera in CAMERAS:
            error = made.alpha(timestep, camera).astype(float)
            error -= true.alpha(other, camera)
            assert np.abs(error).mean() < 0.03 * 255


def test_mattes_of_some_frames_are_not_taken_for_others(raw, truth, tmp_path):
    def prepare_at(stride):
        result = prepare(raw, f"--capture.frame-stride={stride}", steps=("mattes",))
        assert result.returncode == 0, result.stderr
        return {p: p.stat().st_mtime_ns for p in mattes_in(made_of(raw))}

    prepare_at(2)
    check_mattes(raw, truth, tmp_path, 2)
    with pytest.raises(InputError) as refused:
        check_mattes(raw, truth, tmp_path, 1)
    said = str(refused.value)
    assert "are of one frame in 2, but every frame is used" in said
    assert "like 3 other files" in said
    assert "with --capture.frame-stride 1, or pass --capture.frame-stride 2" in said
    before = prepare_at(1)
    for stride in (1, 2):
        check_mattes(raw, truth, tmp_path, stride)
    assert prepare_at(2) == before  # They are among those that are there.
    check_mattes(raw, truth, tmp_path, 1)


def test_mattes_of_two_strides_serve_both_and_no_third(raw, truth, tmp_path):
    for stride in (3, 2):
        options = (f"--capture.frame-stride={stride}",)
        assert prepare(raw, *options, steps=("mattes",)).returncode == 0
    for stride in (2, 3):
        check_mattes(raw, truth, tmp_path, stride)
    record = next(made_of(raw).glob("preparation/mattes/FREE/*.json"))
    frames = json.loads(record.read_text())["frames"]
    assert [frame["frame_id"] for frame in frames] == [0, 2]
    with pytest.raises(InputError, match="of one frame in 2 and one frame in 3"):
        check_mattes(raw, truth, tmp_path, 1)


def test_training_makes_the_mattes_that_other_strides_lack(raw):
    prepare(raw, "--capture.frame-stride=2", steps=("mattes",))
    cache = raw.parent.parent / CACHE
    cfg = CaptureConfig(width=WIDTH, cache_dir=cache)
    job = in_cache(raw.parent, raw.name, cfg, workers=1)
    assert set(prepare_missing(job, ())) == {"mattes"}
    assert prepare_missing(job, ()) == {}
