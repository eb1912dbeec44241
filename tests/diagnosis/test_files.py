from pathlib import Path

import pytest

from npga_jax.diagnosis.files import diagnose_counts, diagnose_matte_sizes

DOCUMENT = (Path(__file__).parents[2] / "docs" / "check-data.md").read_text()
FOLDERS = {"rgb": "images", "alpha": "alpha_maps", "labels": "segmentation"}
CAMERAS = ("222200037", "222200042", "222200046")


def counts(rgb: int, alpha: int, **changes: int) -> dict:
    """Frames of FREE by camera and kind; changes are of images, by camera ("c37")."""
    found = {}
    for camera in CAMERAS:
        found["FREE", camera, "rgb"] = changes.get(f"c{camera[-2:]}", rgb)
        found["FREE", camera, "alpha"] = alpha
    return found


@pytest.mark.parametrize("video_size", [(550, 802), (2200, 3208)])
def test_mattes_of_less_resolution_are_fine(video_size):
    sizes = {"of a": (550, 802), "of b": (275, 401), "of c": video_size}
    assert diagnose_matte_sizes(video_size, sizes) == []


def test_mattes_of_another_shape_are_named():
    sizes = {"of 222200037 in FREE": (512, 512), "of 222200042 in FREE": (550, 802)}
    (said,) = diagnose_matte_sizes((550, 802), sizes)
    assert str(said).startswith(
        "the mattes of 222200037 in FREE are not of the videos' shape (certain: they "
        "are 512x512, the videos 550x802: they would be stretched over the images): "
        "make them of whole frames"
    )
    assert "--capture.no-mattes" in said.remedy
    assert f"| {said} |" in DOCUMENT


def test_mattes_that_are_turned_are_named():
    (said,) = diagnose_matte_sizes(
        (550, 802), {"of a": (802, 550), "of b": (401, 275)}
    )[:1]
    assert "are turned by 90 degrees" in said.what and said.remedy == "turn them back"


def test_counts_that_differ_by_one_are_fine():
    assert diagnose_counts(counts(24, 23), FOLDERS) == []
    assert diagnose_counts({}, FOLDERS) == []


@pytest.mark.parametrize(
    ("rgb", "alpha", "every"), [(24, 12, "2nd"), (73, 25, "3rd"), (100, 25, "4th")]
)
def test_mattes_of_every_nth_frame_are_named(rgb, alpha, every):
    (said,) = diagnose_counts(counts(rgb, alpha), FOLDERS)
    assert said.what == f"FREE/alpha_maps was made from every {every} frame"
    assert said.confidence == "likely"
    assert said.evidence == f"3 of 3 files have {alpha} frames, others {rgb}"
    assert said.remedy.startswith("make it again from every frame of the videos")
    assert said.remedy in DOCUMENT


def test_mattes_of_another_rate_are_possible():
    (said,) = diagnose_counts(counts(100, 70), FOLDERS)
    assert said.what.startswith("FREE/alpha_maps was made at another frame rate")
    assert said.confidence == "possible"
    assert f"| {said} |" in DOCUMENT


def test_one_short_video_is_named_with_the_ways_out():
    (said,) = diagnose_counts(counts(24, 24, c37=20), FOLDERS)
    assert said.what.startswith("FREE/images of 222200037 is cut short, or lost frames")
    assert said.confidence == "likely"
    assert said.evidence == "1 of 3 files have 20 frames, others 24"
    assert "--capture.ignore-cameras 222200037" in said.remedy
    assert "--capture.ignore-sequences FREE" in said.remedy
    assert f"| {said} |" in DOCUMENT
