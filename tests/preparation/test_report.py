"""The page of what was prepared, of records as the steps leave them."""

import re

import numpy as np

from npga_jax.data import Timestep, record_path
from npga_jax.preparation.cloud_records import CloudCheck, keep_check, read_checks
from npga_jax.preparation.matting import FrameCheck
from npga_jax.preparation.records import draw_sheet, write_record
from npga_jax.preparation.report import write_report

TILE = np.full((20, 16, 3), 90, np.uint8)


def write_mattes(output, checks, **made_of):
    record = record_path(output, "mattes", "FREE", "222200037")
    write_record(record, made_of, [c._asdict() for c in checks], TILE)
    draw_sheet({"FREE": [record]}, output / "preparation/mattes.png")


def test_wrong_frames_and_pictures_are_on_the_page(tmp_path):
    fine = [FrameCheck(i, 1.0, 0.6, 1, 0.3) for i in range(4)]
    odd = FrameCheck(4, 1.3, 0.6, 1, 0.3)
    write_mattes(tmp_path, [*fine, odd], plate=[1, 2])
    for i in range(4):
        count = 9000 if i else 2000
        keep_check(tmp_path, Timestep(i, "EXP-<1>", 3 * i), CloudCheck(count, 1.5))
    cloud = tmp_path / "sequences/EXP-<1>/pointclouds/frame_00000.pcd"
    cloud.parent.mkdir(parents=True)
    cloud.write_bytes(bytes(1_500_000))
    path = write_report(tmp_path)
    page = path.read_text()
    assert "Frames that look wrong: 2" in page
    assert "<td>222200037</td><td>4</td><td>1.30 times as bright" in page
    assert "<td>EXP-&lt;1&gt;</td><td>cloud</td><td>0</td><td>2,000 points" in page
    assert "9,000 points in the middle, 1.5 s a frame</td><td>1.5 MB" in page
    assert "outlines" not in page
    assert re.findall('src="([^"]+)"', page) == ["mattes.png"]
    assert (path.parent / "mattes.png").exists()
    assert "http" not in page


def test_it_says_which_mattes_are_outlines(tmp_path):
    write_mattes(tmp_path, [FrameCheck(0, None, None, 0, 0.0)], outline=1)
    page = write_report(tmp_path).read_text()
    assert "1 videos without plates: outlines of what stereo finds" in page
    assert "<td>0</td><td>stereo finds nobody</td>" in page


def test_nothing_prepared_is_a_page_too(tmp_path):
    assert "Frames that look wrong: 0" in write_report(tmp_path).read_text()


def test_records_are_added_to(tmp_path):
    keep_check(tmp_path, Timestep(0, "FREE", 0), CloudCheck(9000, 1.0))
    keep_check(tmp_path, Timestep(2, "FREE", 6), CloudCheck(8000, 2.0))
    keep_check(tmp_path, Timestep(0, "FREE", 0), CloudCheck(7000, 1.0))
    assert read_checks(tmp_path) == {
        ("FREE", 0): CloudCheck(7000, 1.0),
        ("FREE", 6): CloudCheck(8000, 2.0),
    }
    (tmp_path / "preparation/clouds/FREE.json").write_text("{")
    assert read_checks(tmp_path) == {}
