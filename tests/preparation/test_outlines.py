"""Outlines of a painted ball before a wall, without mattes and plates."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from npga_jax.app import in_cache, prepare_missing
from npga_jax.core import InputError
from npga_jax.data import CaptureConfig, open_located, prepared_folder
from npga_jax.preparation import checks_of, find_raw, tasks_of
from npga_jax.preparation.matting import keep_mattes
from npga_jax.preparation.outlines import outlines_of
from npga_jax.preparation.stereo import depth_maps
from tests.preparation.test_stereo import ANGLES, HEIGHT, WIDTH, look_from, see
from tests.scripts import run_script
from tests.synthetic_capture import write_video

SEQUENCES = ("EXP-1-head", "FREE")


@pytest.fixture(scope="module")
def views():
    return [see(look_from(a), f"22220003{i}", noise=0.01) for i, a in enumerate(ANGLES)]


def outlines(views):
    bare = [v._replace(matte=None) for v in views]
    return outlines_of(bare, depth_maps(bare, workers=2))


def overlap(found, true):
    return (found & true).sum() / (found | true).sum()


def test_outlines_are_those_of_the_ball(views):
    found = outlines(views)
    shares = [
        overlap(f, v.matte > 127) for f, v in zip(found, views, strict=True)
    ]  # A grid point at the rim is worth 0.04.
    assert np.mean(shares) > 0.95 and min(shares) > 0.93


def test_what_agrees_on_nothing_is_nobody(views):
    rng = np.random.default_rng(4)
    walls = [
        v._replace(image=rng.integers(0, 255, v.image.shape, np.uint8)) for v in views
    ]
    assert not any(found.any() for found in outlines(walls))


@pytest.fixture(scope="module")
def raw(views, tmp_path_factory):
    """Two sequences of a frame each: videos and calibration."""
    folder = tmp_path_factory.mktemp("raw") / "ball"
    calibration = {
        "world_2_cam": {v.camera.camera_id: v.camera.world2cam.tolist() for v in views},
        "intrinsics": views[0].camera.K.tolist(),
        "width": WIDTH,
        "height": HEIGHT,
    }
    path = folder / "calibration/camera_params.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(calibration))
    for sequence in SEQUENCES:
        for view in views:
            images = folder / "sequences" / sequence / "images"
            write_video(
                images / f"cam_{view.camera.camera_id}.mp4", view.image[None], 24
            )
    return folder


def prepare(raw, *options):
    return run_script(
        "experiments/prepare.py",
        f"--subject={raw.name}",
        f"--data-root={raw.parent}",
        f"--capture.cache-dir={raw.parent / 'cache'}",
        "--workers=1",
        "--points=2000",
        *options,
        "--steps",
        "mattes",
        "clouds",
    )


def test_a_capture_without_plates_gets_mattes_and_clouds(views, raw):
    result = prepare(raw)
    assert result.returncode == 0, result.stderr
    assert "no clean plates: mattes are the outline of what stereo" in result.stdout
    assert "10 mattes in 10 videos" in result.stdout
    assert "2 of 2 frames have clouds: kept" in result.stdout
    assert "LOOKS WRONG" not in result.stdout
    made = prepared_folder(raw, raw.parent / "cache")
    cfg = CaptureConfig(width=WIDTH, cache_dir=raw.parent / "cache")
    capture = open_located(
        raw.parent, raw.name, cfg, progress=False, need_driving=False
    )
    assert capture.has_mattes
    for timestep in capture.timesteps:
        assert len(capture.points(timestep).xyz) > 500
        for view in views:
            alpha = capture.alpha(timestep, view.camera.camera_id)
            # Rims are for images of some hundred pixels.
            assert overlap(alpha > 127, view.matte > 127) > 0.85
    for picture in ("mattes.png", "clouds.png"):
        with Image.open(made / "preparation" / picture) as sheet:
            assert sheet.height > 2 * 160
        assert picture in (made / "preparation/report.html").read_text()

    mattes = sorted(made.glob("sequences/*/alpha_maps/*.mp4"))
    before = {p: p.stat().st_mtime_ns for p in (*mattes, *made.rglob("*.pcd"))}
    assert len(before) == 10 + 2
    mattes[-1].unlink()
    job = in_cache(raw.parent, raw.name, cfg, points=2000, workers=1)
    assert set(prepare_missing(job, ())) == {"mattes"}  # As training does it.
    changed = [p for p in before if p.stat().st_mtime_ns != before[p]]
    assert changed == mattes[-1:]
    assert prepare_missing(job, SEQUENCES) == {}


def test_outlines_that_another_stride_lacks_are_made(views, raw, tmp_path):
    copy = tmp_path / raw.name
    shutil.copytree(raw, copy)
    for view in views:
        name = f"sequences/FREE/images/cam_{view.camera.camera_id}.mp4"
        write_video(copy / name, np.stack(3 * [view.image]), 24)
    options = ("--capture.ignore-sequences=EXP",)
    for stride, count in ((3, 1), (2, 2)):
        result = prepare(copy, *options, f"--capture.frame-stride={stride}")
        assert result.returncode == 0, result.stderr
        made = prepared_folder(copy, tmp_path / "cache")
        records = sorted(made.glob("preparation/mattes/FREE/*.json"))
        frames = [json.loads(record.read_text())["frames"] for record in records]
        assert [[f["frame_id"] for f in x] for x in frames] == 5 * [[0, 2][:count]]
        assert len(list(made.rglob("*.pcd"))) == count


def test_once_there_are_plates_mattes_are_made_of_them(raw, tmp_path):
    copy = tmp_path / raw.name
    shutil.copytree(raw, copy)
    cfg = CaptureConfig()
    task = tasks_of(find_raw(tmp_path, raw.name, cfg), tmp_path, WIDTH)[0]
    assert task.plate is None
    keep_mattes(
        task, [np.zeros(task.size[::-1], np.uint8)], [], np.zeros((9, 9, 3), np.uint8)
    )
    assert checks_of(task) == []
    for camera in find_raw(tmp_path, raw.name, cfg).cameras:
        plate = copy / f"sequences/BACKGROUND/image_{camera}.jpg"
        plate.parent.mkdir(exist_ok=True)
        plate.touch()
    again = tasks_of(find_raw(tmp_path, raw.name, cfg), tmp_path, WIDTH)[0]
    assert again.output == task.output and again.plate is not None
    assert checks_of(again) is None


def test_mattes_of_ones_own_for_some_videos_are_not_outlined(raw, tmp_path):
    copy = tmp_path / raw.name
    shutil.copytree(raw, copy)
    images = copy / "sequences/FREE/images"
    shutil.copytree(images, images.with_name("alpha_maps"))
    with pytest.raises(InputError, match="there are no clean plates in"):
        tasks_of(find_raw(tmp_path, raw.name, CaptureConfig()), tmp_path / "x", WIDTH)


def test_a_sequence_where_nobody_is_found_is_refused(raw, tmp_path):
    copy = tmp_path / "nobody"
    shutil.copytree(raw, copy)
    for path in copy.glob("sequences/FREE/images/*.mp4"):
        write_video(path, np.full((1, HEIGHT, WIDTH, 3), 128, np.uint8), 24)
    result = prepare(copy, "--capture.ignore-sequences=EXP")
    assert result.returncode == 2
    assert "in FREE of nobody stereo finds nobody" in result.stderr
    assert not list(tmp_path.rglob("alpha_maps"))
