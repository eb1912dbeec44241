import shutil
from pathlib import Path

import pytest
from PIL import Image

from npga_jax.data.driving import tracked_folder
from tests.scripts import Result, run_script


@pytest.fixture
def damaged(tiny_capture, tmp_path) -> Path:
    """A data root with a copy of subject 074 that a test may damage."""
    shutil.copytree(tiny_capture.folder, tmp_path / "root/074")
    return tmp_path / "root"


def check(root: Path, tmp_path: Path, *options: str) -> Result:
    command = ["--subject", "074"]
    command += ["--data-root", str(root), "--output", str(tmp_path / "out")]
    command += ["--capture.width", "16", "--capture.cache-dir", str(tmp_path / "cache")]
    return run_script("experiments/check_data.py", *command, *options)


def test_good_capture_gets_a_contact_sheet(tiny_capture, tmp_path):
    result = check(tiny_capture.root, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "EXP-2-eyes" in result.stdout and "frame stride 1" in result.stdout
    with Image.open(tmp_path / "out/contact_sheet.png") as sheet:
        assert sheet.size == (4 * 16, 2 * 24)


def test_all_problems_are_listed_and_no_stack_trace(damaged, tmp_path):
    (damaged / "074/calibration/camera_params.json").write_text("{")
    (damaged / "074/sequences/FREE/tracking/blendshapes.npz").unlink()
    result = check(damaged, tmp_path)
    assert result.returncode == 2
    assert "camera_params.json" in result.stdout
    assert "FREE has no driving codes" in result.stdout
    assert result.stderr.startswith("error: 2 problems with subject 074")
    assert "Traceback" not in result.stderr


def test_videos_cut_short_are_found_by_decoding(damaged, tmp_path):
    path = damaged / "074/sequences/FREE/images/cam_222200046.mp4"
    path.write_bytes(path.read_bytes()[:-200])
    result = check(damaged, tmp_path, "--decode")
    assert result.returncode == 2
    assert "cam_222200046.mp4 is cut short" in result.stderr


def test_driving_files_are_listed_with_the_one_that_is_used(damaged, tmp_path):
    folder = damaged / "074"
    flame = folder / "sequences/FREE/tracking/blendshapes.npz"
    place = tracked_folder(folder, tmp_path / "cache") / "FREE/tracking"
    place.mkdir(parents=True)
    shutil.copy(flame, place / "nphm.npz")
    result = check(damaged, tmp_path)
    assert result.returncode == 2
    assert "blendshapes, nphm (cache)\n" in result.stdout
    assert "--capture.driving blendshapes or --capture.driving nphm" in result.stdout
    result = check(damaged, tmp_path, "--capture.driving", "blendshapes")
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if "blendshapes" in line]
    assert [line.split(maxsplit=7)[-1] for line in lines] == [
        "blendshapes*",
        "blendshapes*, nphm (cache)",
    ]


def test_capture_without_codes_is_fine_since_training_tracks(damaged, tmp_path):
    for path in damaged.glob("074/sequences/*/tracking/*.npz"):
        path.unlink()
    result = check(damaged, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "no codes     in EXP-2-eyes, FREE: experiments/train.py" in result.stdout
    assert "sequences    2, 8 frames used" in result.stdout
    assert (tmp_path / "out/contact_sheet.png").is_file()
