"""A raw capture, and its truth."""

import shutil

import pytest

from tests.preparation.raw_capture import (
    CAMERAS,
    HEIGHT,
    SEQUENCES,
    WIDTH,
    write_plate,
)
from tests.synthetic_capture import write_capture


@pytest.fixture(scope="session")
def truth(tmp_path_factory):
    """A capture with mattes, to compare with."""
    return write_capture(
        tmp_path_factory.mktemp("truth"),
        sequences=SEQUENCES,
        cameras=CAMERAS,
        num_frames=3,
        width=WIDTH,
        height=HEIGHT,
        with_labels=False,
    )


@pytest.fixture
def raw(truth, tmp_path):
    """The same as it is handed out: plates, no mattes."""
    folder = tmp_path / "raw" / truth.subject
    without = shutil.ignore_patterns("alpha_maps")
    shutil.copytree(truth.folder, folder, ignore=without)
    plates = folder / "sequences" / "BACKGROUND"
    plates.mkdir()
    for camera in CAMERAS:
        write_plate(plates / f"image_{camera}.jpg")
    return folder
