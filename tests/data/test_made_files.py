"""Mattes and label maps that were made of some frames are not those of others."""

import shutil

import numpy as np
import pytest

from npga_jax.core import InputError
from npga_jax.data import CaptureConfig, open_located
from npga_jax.data.location import prepared_folder
from npga_jax.data.made_files import record_path
from tests.data import layouts
from tests.scripts import run_script
from tests.synthetic_capture import CAMERAS, write_json

SEQUENCE = "EXP-2-eyes"


def write_record(place, kind, *, stride, frames=(), camera=CAMERAS[1]):
    """As `experiments/prepare.py` leaves it beside a file."""
    content = {"made_of": {"stride": stride}, "frames": frames}
    write_json(record_path(place, kind, SEQUENCE, camera), content)


def opened(root, subject, cache, **options):
    cfg = CaptureConfig(width=32, cache_dir=cache, **options)
    return open_located(root, subject, cfg, progress=False, decode=False)


def test_every_frame_that_is_used_needs_its_own_matte(damaged, tmp_path):
    write_record(damaged / "074", "mattes", stride=2)
    with pytest.raises(InputError) as refused:
        opened(damaged, "074", tmp_path)
    video = damaged / f"074/sequences/{SEQUENCE}/alpha_maps/cam_{CAMERAS[1]}.mp4"
    assert str(refused.value) == (
        f"the mattes in {video} are of one frame in 2, but every frame is used: make "
        "the others by the experiments/prepare.py command that made them, with "
        "--capture.frame-stride 1, or pass --capture.frame-stride 2, or "
        "--capture.no-mattes to use none at all."
    )
    assert len(opened(damaged, "074", tmp_path, frame_stride=2).timesteps) == 4
    assert not opened(damaged, "074", tmp_path, mattes=False).has_mattes
    # A link is the user's own, whatever was recorded.
    video.rename(tmp_path / "own.mp4")
    video.symlink_to(tmp_path / "own.mp4")
    assert opened(damaged, "074", tmp_path).has_mattes


@pytest.mark.parametrize("damage", [{"frames": None}, {"stride": "2"}, {"stride": 0}])
def test_a_record_that_says_nothing_is_no_frames(damaged, tmp_path, damage):
    write_record(damaged / "074", "mattes", **{"stride": 1, **damage})
    with pytest.raises(InputError, match="are of nothing that was finished"):
        opened(damaged, "074", tmp_path)


def test_tracking_says_so_too(damaged, tmp_path):
    write_record(damaged / "074", "mattes", stride=[2, 3])
    options = ("--subject=074", f"--data-root={damaged}", "--capture.width=32")
    result = run_script(
        "experiments/track.py", *options, f"--capture.cache-dir={tmp_path}"
    )
    assert result.returncode == 2
    assert "of one frame in 2 and one frame in 3, but every frame" in result.stderr


def check_labels(capture):
    """Those of one camera are of even frames alone; the user's own are of all."""
    used = [t for t in capture.timesteps if t.sequence == capture.sequences[0]]
    for camera in CAMERAS[:2]:
        for i, timestep in enumerate(used):
            is_there = camera != CAMERAS[1] or i % 2 == 0
            assert capture.has_labels(timestep, camera) == is_there
            assert (capture.labels(timestep, camera) is not None) == is_there
    (note,) = (note for note in capture.notes if "of one frame in" in note)
    assert "other frames have none" in note


def test_frames_that_label_maps_were_not_made_of_have_none(damaged, tmp_path):
    write_record(damaged / "074", "labels", stride=2)
    check_labels(opened(damaged, "074", tmp_path))


def test_nor_have_they_in_other_layouts(damaged, tmp_path):
    source = opened(damaged, "074", tmp_path)
    folder, cache = tmp_path / "001", tmp_path / "cache"
    layouts.write_diffusion_avatars(folder, source)
    for path in list(folder.rglob("facer_segmentation_masks")):
        shutil.rmtree(path)  # Else they would come first.
    place = prepared_folder(folder, cache)
    target = place / "sequences" / SEQUENCE / "segmentation"
    target.mkdir(parents=True)
    for camera in CAMERAS:
        np.savez(target / f"cam_{camera}.npz", labels=np.ones((4, 48, 32), np.uint8))
    write_record(place, "labels", stride=2 * layouts.SPACING)
    check_labels(opened(tmp_path, "001", cache, driving="flame"))
