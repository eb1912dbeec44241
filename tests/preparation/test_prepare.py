"""`experiments/prepare.py` on a small raw capture."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from npga_jax.preparation.matting import FrameCheck, wrong_frames
from npga_jax.preparation.records import TILE_WIDTH, draw_sheet, write_record
from tests.preparation.raw_capture import (
    CACHE,
    CAMERAS,
    HEIGHT,
    WIDTH,
    made_of,
    mattes_in,
    open_prepared,
    prepare,
    write_plate,
)
from tests.synthetic_capture import BACKGROUND, write_video


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_prepared_capture_has_the_true_mattes(raw, truth, tmp_path, elsewhere):
    output = tmp_path / "prepared" if elsewhere else None
    result = prepare(raw, *([f"--output={output}"] if output else []))
    assert result.returncode == 0, result.stderr
    assert "12 mattes in 4 videos" in result.stdout
    assert "mattes: about" in result.stderr  # What the disk will be asked for.
    assert "LOOKS WRONG" not in result.stdout
    assert not list(raw.rglob("alpha_maps"))  # What was handed out stays as it was.
    made = open_prepared(output or raw.parent, raw.name, raw.parent.parent / CACHE)
    true = open_prepared(truth.root, truth.subject, tmp_path / "cache")
    assert made.has_mattes and len(made.timesteps) == len(true.timesteps)
    for timestep in made.timesteps:
        for camera in CAMERAS:
            alpha = made.alpha(timestep, camera).astype(float)
            error = np.abs(alpha - true.alpha(timestep, camera)) / 255
            assert error.mean() < 0.03
            np.testing.assert_array_equal(
                made.rgb(timestep, camera), true.rgb(timestep, camera)
            )
    folder = output / raw.name if output else made_of(raw)
    with Image.open(folder / "preparation" / "mattes.png") as sheet:
        assert sheet.width == len(CAMERAS) * 160


def test_what_is_there_is_not_made_again(raw):
    assert prepare(raw).returncode == 0
    before = {p: p.stat().st_mtime_ns for p in mattes_in(made_of(raw))}
    assert len(before) == 4
    mattes_in(made_of(raw))[0].unlink()
    assert prepare(raw).returncode == 0
    after = {p: p.stat().st_mtime_ns for p in mattes_in(made_of(raw))}
    changed = [p for p in before if before[p] != after[p]]
    assert changed == mattes_in(made_of(raw))[:1]
    # Another plate, another matte.
    camera = CAMERAS[0]
    write_plate(raw / "sequences/BACKGROUND" / f"image_{camera}.jpg")
    assert prepare(raw).returncode == 0
    again = {p: p.stat().st_mtime_ns for p in mattes_in(made_of(raw))}
    changed = [p for p in after if after[p] != again[p]]
    assert {p.stem for p in changed} == {f"cam_{camera}"}


@pytest.mark.parametrize("elsewhere", [False, True])
def test_mattes_of_ones_own_are_kept(raw, truth, tmp_path, elsewhere):
    own = truth.folder / "sequences/FREE/alpha_maps" / f"cam_{CAMERAS[0]}.mp4"
    target = raw / own.relative_to(truth.folder)
    target.parent.mkdir(parents=True)
    shutil.copyfile(own, target)
    before = target.read_bytes()
    output = tmp_path / "prepared"
    result = prepare(raw, *([f"--output={output}"] if elsewhere else []))
    assert "1 of 4 videos have mattes of your own: kept" in result.stdout
    assert target.read_bytes() == before
    assert len(mattes_in(raw)) == 1
    made = output / raw.name if elsewhere else made_of(raw)
    assert len(mattes_in(made)) == (4 if elsewhere else 3)
    opened = open_prepared(
        output if elsewhere else raw.parent, raw.name, raw.parent.parent / CACHE
    )
    assert opened.has_mattes


def test_frames_without_a_person_are_named(raw):
    video = raw / "sequences/FREE/images" / f"cam_{CAMERAS[1]}.mp4"
    empty = np.broadcast_to(np.uint8(BACKGROUND), (3, HEIGHT, WIDTH, 3))
    write_video(video, np.ascontiguousarray(empty), 24)
    result = prepare(raw, steps=("mattes",))
    assert result.returncode == 0
    named = [x for x in result.stdout.splitlines() if "LOOKS WRONG" in x]
    assert len(named) == 3
    assert f"FREE camera {CAMERAS[1]} frame 0: nobody is seen" in named[0]


def remove_all(plates):
    shutil.rmtree(plates)


def remove_one(plates):
    (plates / f"image_{CAMERAS[1]}.jpg").unlink()


def shrink(plates):
    write_plate(plates / f"image_{CAMERAS[1]}.jpg", width=WIDTH // 2)


def cut(plates):
    path = plates / f"image_{CAMERAS[1]}.jpg"
    path.write_bytes(path.read_bytes()[:100])


def cut_video(plates):
    path = plates.parent / "FREE/images" / f"cam_{CAMERAS[1]}.mp4"
    path.write_bytes(path.read_bytes()[:-300])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (remove_all, "there are no clean plates in"),
        (remove_one, f"has no plate image_SERIAL.jpg of {CAMERAS[1]} but has those"),
        (shrink, "is 48x144, but"),
        (cut, "is no readable image"),
        (cut_video, "damaged"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_half_is_left(raw, damage, said):
    damage(raw / "sequences" / "BACKGROUND")
    result = prepare(raw)
    assert result.returncode == 2
    assert said in result.stderr and "Traceback" not in result.stderr
    assert not list(raw.parent.parent.rglob("*.part"))
    # What was finished before is whole.
    for path in mattes_in(made_of(raw)):
        records = made_of(raw) / "preparation/mattes" / path.parts[-3]
        assert json.loads((records / f"{path.stem}.json").read_text())["frames"]


def test_clouds_need_mattes(raw):
    shutil.rmtree(raw / "sequences/FREE/pointclouds")
    result = prepare(raw, steps=("clouds",))
    assert result.returncode == 2
    assert "Make them first: leave out --steps" in result.stderr


def test_clouds_that_are_there_are_kept(raw):
    result = prepare(raw)
    assert result.returncode == 0, result.stderr
    assert "6 of 6 frames have clouds: kept" in result.stdout


def test_what_makes_a_frame_look_wrong():
    fine = [FrameCheck(i, 1.0, 0.6, 1, 0.3) for i in range(9)]
    assert wrong_frames(fine) == {}
    for change, said in (
        ({"people": 0, "area": 0.0}, "nobody"),
        ({"people": 2}, "2 things"),
        ({"exposure": 1.3}, "1.30 times as bright"),
        ({"explained": 0.01}, "explains 1%"),
        ({"area": 0.15}, "covers 15% of the image, usually 30%"),
    ):
        odd = [*fine, FrameCheck(9, 1.0, 0.6, 1, 0.3)._replace(**change)]
        ((frame_id, why),) = wrong_frames(odd).items()
        assert frame_id == 9 and said in why


def test_links_lead_to_one_capture(raw, tmp_path):
    output = tmp_path / "out"
    steps = ("mattes",)
    assert prepare(raw, f"--output={output}", steps=steps).returncode == 0
    other = tmp_path / "moved" / "raw" / raw.name
    shutil.copytree(raw, other)
    result = prepare(other, f"--output={output}", steps=steps)
    assert result.returncode == 2
    assert "was made of" in result.stderr and "choose another --output" in result.stderr
    # Links whose capture is gone are made anew, and lead nowhere else.
    shutil.rmtree(raw)
    assert prepare(other, f"--output={output}", steps=steps).returncode == 0
    video = output / raw.name / "sequences/FREE/images"
    assert video.resolve() == (other / "sequences/FREE/images").resolve()
    assert not raw.exists()


def test_the_capture_itself_is_no_output(raw):
    result = prepare(raw, f"--output={raw.parent}", steps=("mattes",))
    assert result.returncode == 2
    assert "is where the capture itself lies" in result.stderr
    assert not (raw / "preparation").exists()


def test_a_matte_whose_record_was_cut_short_is_made_again(raw):
    assert prepare(raw, steps=("mattes",)).returncode == 0
    record = next(made_of(raw).glob("preparation/mattes/FREE/*.json"))
    stored = json.loads(record.read_text())
    # As a kill leaves it that comes before the record, and after the video.
    record.write_text(json.dumps({**stored, "frames": None}))
    video = made_of(raw) / "sequences/FREE/alpha_maps" / f"{record.stem}.mp4"
    before = video.stat().st_mtime_ns
    result = prepare(raw, steps=("mattes",))
    assert result.returncode == 0 and "of your own" not in result.stdout
    assert video.stat().st_mtime_ns != before
    assert json.loads(record.read_text()) == stored


def test_odd_choices_are_refused_and_odd_files_are_not_in_the_way(raw, tmp_path):
    for options, steps, said in (
        (("--workers=-3",), ("mattes",), "--workers -3"),
        (("--capture.width=0",), ("mattes",), "--capture.width 0"),
        ((), (), "--steps names none"),
    ):
        result = prepare(raw, *options, steps=steps)
        assert result.returncode == 2 and said in result.stderr
    (raw / "sequences/FREE/landmarks").write_text("no folder")
    output = tmp_path / "out"
    assert prepare(raw, f"--output={output}", steps=("mattes",)).returncode == 0


def test_a_damaged_picture_is_one_sentence(raw):
    plate = raw / "sequences/BACKGROUND" / f"image_{CAMERAS[0]}.jpg"
    plate.unlink()
    png = plate.with_suffix(".png")
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(png)
    content = bytearray(png.read_bytes())
    content[content.index(b"IDAT") + 1] = 0xFF  # A chunk that there is not.
    png.write_bytes(content)
    result = prepare(raw, steps=("mattes",))
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "is no readable image" in result.stderr


def test_pictures_of_several_sizes_make_one_sheet(tmp_path):
    rows = {"A": [], "B": []}
    for row, name, height in (("A", "a", 30), ("A", "b", 31), ("B", "c", 12)):
        record = tmp_path / f"{name}.json"
        picture = np.full((height, TILE_WIDTH, 3), height, np.uint8)
        write_record(record, {}, [], picture)
        rows[row].append(record)
    draw_sheet(rows, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (2 * TILE_WIDTH, 31 + 12)
