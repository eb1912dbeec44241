import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from npga_jax.data.decoding import decode
from npga_jax.data.driving import tracked_folder
from tests.scripts import Result, run_script
from tests.synthetic_capture import write_json, write_video


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


def edit_poses(root: Path, change) -> None:
    path = root / "074/calibration/camera_params.json"
    content = json.loads(path.read_text())
    poses = content["world_2_cam"]
    content["world_2_cam"] = {
        s: change(np.array(pose)).tolist() for s, pose in poses.items()
    }
    write_json(path, content)


def test_cause_is_said_beside_the_problem(damaged, tmp_path):
    edit_poses(damaged, np.linalg.inv)
    result = check(damaged, tmp_path)
    assert result.returncode == 2
    assert "PROBLEMS\n" in result.stdout and "DIAGNOSES\n" in result.stdout
    assert (
        "  - the matrices of all cameras are camera-to-world, not world-to-camera "
        "(certain: points of the cloud on the mattes: "
    ) in result.stdout
    assert "invert the matrices of all cameras ('world_2_cam' in" in result.stdout
    assert result.stderr.startswith("error: 1 problem and 1 certain diagnosis with")
    assert "Traceback" not in result.stderr


def test_what_no_problem_shows_is_diagnosed(written, tmp_path):
    damaged = tmp_path / "dense"  # Its clouds have points enough to be sure.
    shutil.copytree(written.folder, damaged / "074")
    path = damaged / "074/calibration/camera_params.json"
    content = json.loads(path.read_text())
    content["width"], content["height"] = 128, 192  # K is for 64 x 96.
    write_json(path, content)
    result = check(damaged, tmp_path)
    assert result.returncode == 2
    assert "PROBLEMS" not in result.stdout
    assert (
        "intrinsics of all cameras are for images 1/2 times as large" in result.stdout
    )
    assert result.stderr.startswith("error: 1 certain diagnosis with subject 074")
    assert (tmp_path / "out/contact_sheet.png").is_file()


def test_cameras_that_are_refused_are_diagnosed_as_stated(damaged, tmp_path):
    path = damaged / "074/calibration/camera_params.json"
    content = json.loads(path.read_text())
    content["width"], content["height"] = 32, 48  # K is for 64 x 96.
    write_json(path, content)
    result = check(damaged, tmp_path)
    assert result.returncode == 2
    assert "does not tell that the intrinsics are meant for images" in result.stdout
    assert "intrinsics of all cameras are for images 2 times as large" in result.stdout


def test_mattes_and_counts_are_diagnosed(damaged, tmp_path):
    for path in damaged.glob("074/sequences/FREE/alpha_maps/*.mp4"):
        write_video(path, np.full((2, 32, 32, 3), 90, np.uint8))
    result = check(damaged, tmp_path)
    assert result.returncode == 2
    assert "FREE/alpha_maps was made from every 2nd frame (likely: " in result.stdout
    assert "in FREE are not of the videos' shape (certain: they are 32x32" in (
        result.stdout
    )


def test_missing_hold_out_is_diagnosed(damaged, tmp_path):
    result = check(damaged, tmp_path, "--capture.held-out-sequence", "SEN")
    assert result.returncode == 2
    assert "what is to be held out cannot be (certain: there is no sequence 'SEN'" in (
        result.stdout
    )


def test_inverted_mattes_are_one_diagnosis(damaged, tmp_path):
    for path in damaged.glob("074/sequences/*/alpha_maps/*.mp4"):
        frames: list[np.ndarray] = []
        decode(path, "alpha", 1, lambda frame, kept=frames: kept.append(frame.copy()))
        write_video(path, np.repeat(255 - np.stack(frames)[..., None], 3, axis=-1))
    result = check(damaged, tmp_path)
    assert result.returncode == 2
    assert result.stdout.count("is no matte: it seems inverted") == 6
    assert "the mattes of all cameras are inverted (" in result.stdout
    assert "--capture.no-mattes to use none at all.\n" in result.stdout
