"""What camera_params.json may say, and what it must not."""

import json
from pathlib import Path

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.data.calibration import load_calibration, make_camera

K_550 = [[2048.0, 0, 275.0], [0, 2048.0, 400.0], [0, 0, 1]]
K_2200 = [[8192.0, 0, 1099.0], [0, 8192.0, 1610.0], [0, 0, 1]]
VIDEO = 550, 802


def write(folder: Path, **changes: object) -> Path:
    content = {"world_2_cam": {"1": np.eye(4).tolist()}, "intrinsics": K_550}
    path = folder / "camera_params.json"
    path.write_text(json.dumps(content | changes))
    return path


def camera_K(path: Path, video_size: tuple[int, int] = VIDEO) -> np.ndarray:
    return make_camera(load_calibration(path), "1", video_size, video_size).K


@pytest.mark.parametrize(
    ("changes", "focal"),
    [
        ({"intrinsics": K_550}, 2048),
        ({"intrinsics": K_2200}, 2048),
        ({"intrinsics": {"1": K_550}}, 2048),
        ({"intrinsics": {"1": K_550}, "width": 2200, "height": 3208}, 2048),
        ({"intrinsics": {"1": K_2200}, "width": 2200, "height": 3208}, 2048),
        ({"intrinsics": K_2200, "width": 2200, "height": 3208}, 2048),
    ],
)
def test_the_principal_point_tells_what_size_K_is_for(tmp_path, changes, focal):
    assert camera_K(write(tmp_path, **changes))[0, 0] == pytest.approx(focal)


@pytest.mark.parametrize(
    "changes",
    [
        {"intrinsics": [[1.2, 0, 0.5], [0, 1.2, 0.5], [0, 0, 1]]},
        {"intrinsics": [[4096, 0, 550.0], [0, 4096, 802], [0, 0, 1]]},
        {"intrinsics": {"1": K_2200}},
        {"intrinsics": K_2200, "width": 550, "height": 802},
    ],
)
def test_a_size_that_does_not_fit_is_asked_for(tmp_path, changes):
    with pytest.raises(InputError, match=r"principal point \(.*'width' and 'height'"):
        camera_K(write(tmp_path, **changes))


def test_half_a_size_is_no_size(tmp_path):
    with pytest.raises(InputError, match="are 550 and None"):
        load_calibration(write(tmp_path, width=550))


@pytest.mark.parametrize("at", [(0, 1), (1, 0)])
def test_skew_is_refused_with_its_value(tmp_path, at):
    K = np.array(K_550)
    K[at] = -25
    with pytest.raises(InputError, match="skew of -25 pixels"):
        load_calibration(write(tmp_path, intrinsics=K.tolist()))
    with pytest.raises(InputError, match="skew of -25 pixels"):
        load_calibration(write(tmp_path, intrinsics={"1": K.tolist()}))


@pytest.mark.parametrize(
    "changes",
    [
        {"distortion": [0.1, 0, 0, 0, 0]},
        {"distortion": {"1": [0, 0, 1e-3, 0]}},
        {"dist_coeffs": [[0.0, 0.2]]},
        {"k1": 0.1},
        {"cameras": {"1": {"Radial": {"k1": -0.3}}}},
        {"distortion_model": "fisheye"},
    ],
)
def test_distortion_is_refused_wherever_it_is_written(tmp_path, changes):
    with pytest.raises(InputError, match="cameras here are pinholes"):
        load_calibration(write(tmp_path, **changes))


def test_distortion_of_zero_is_none(tmp_path):
    path = write(tmp_path, distortion={"1": [0, 0.0, 0]}, k1=0, dist=None)
    assert load_calibration(path).Ks["1"][0, 0] == 2048


@pytest.mark.parametrize(
    ("pose", "message"),
    [
        (np.diag([1.0, 1, -1, 1]), r"is mirrored \(determinant -1\)"),
        (np.diag([2.0, 2, 2, 1]), r"not rigid.*2, 2, 2.*determinant 8"),
        (np.diag([1.0, 1, 1, 2]), r"last row \[0.0, 0.0, 0.0, 2.0\]"),
        (np.eye(4) + 0.5 * np.eye(4)[[3, 0, 1, 2]].T, "last row|not rigid"),
    ],
)
def test_poses_that_are_not_rigid_are_refused_with_the_value(tmp_path, pose, message):
    with pytest.raises(InputError, match=message):
        load_calibration(write(tmp_path, world_2_cam={"1": pose.tolist()}))
