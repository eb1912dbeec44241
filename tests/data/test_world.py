"""Units, axes and normals that do not fit are noticed before anything is trained."""

import json
from pathlib import Path

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.data.opening import open_capture
from npga_jax.data.pcd import read_pcd
from tests.synthetic_capture import write_driving, write_json, write_pcd


def change_poses(root: Path, change) -> None:
    path = root / "074/calibration/camera_params.json"
    content = json.loads(path.read_text())
    poses = content["world_2_cam"]
    content["world_2_cam"] = {
        s: change(np.array(pose)).tolist() for s, pose in poses.items()
    }
    write_json(path, content)


def change_clouds(root: Path, change) -> None:
    for path in root.glob("074/sequences/*/pointclouds/*.pcd"):
        cloud = read_pcd(path)
        write_pcd(path, *change(cloud.xyz, cloud.rgb, cloud.normals))


def open_074(root: Path, cfg, **kwargs):
    return open_capture("074", root, cfg, progress=False, decode=False, **kwargs)


def scaled(factor: float):
    def change(pose):
        pose[:3, 3] *= factor
        return pose

    return change


@pytest.mark.parametrize("factor", [100, 1000])
def test_cameras_in_other_units_are_named_with_the_factor(damaged, small, factor):
    change_poses(damaged, scaled(factor))
    with pytest.raises(InputError, match=f"'world_2_cam' .* by {factor} "):
        open_074(damaged, small)
    for path in damaged.glob("074/sequences/*/pointclouds/*.pcd"):
        path.unlink()  # The heads of the codes say the same.
    with pytest.raises(InputError, match=f"'world_2_cam' .* by {factor} "):
        open_074(damaged, small)


@pytest.mark.parametrize("factor", [100, 1000])
def test_clouds_in_other_units_are_named_with_the_factor(damaged, small, factor):
    change_clouds(damaged, lambda xyz, rgb, normals: (factor * xyz, rgb, normals))
    with pytest.raises(InputError, match=rf"Divide them by {factor}\."):
        open_074(damaged, small)


def test_heads_in_other_units_are_named(damaged, small, written):
    for sequence in written.sequences:
        poses = written.world_from_head[sequence].copy()
        poses[:, :3, 3] += 300
        place = damaged / "074/sequences" / sequence / "tracking/blendshapes.npz"
        write_driving(place, expr=written.expr[sequence], world_from_head=poses)
    with pytest.raises(InputError, match=r"puts heads .* m from the point clouds"):
        open_074(damaged, small)


@pytest.mark.parametrize(
    "change", [np.linalg.inv, lambda m: np.diag([1, -1, -1, 1]) @ m]
)
def test_poses_the_other_way_or_with_other_axes_are_named(damaged, small, change):
    change_poses(damaged, change)
    with pytest.raises(InputError, match=r"is behind or beside 222200.*OpenCV axes"):
        open_074(damaged, small)


def test_normals_that_point_inward_are_turned(damaged, small, written):
    change_clouds(damaged, lambda xyz, rgb, normals: (xyz, rgb, -normals))
    capture = open_074(damaged, small)
    assert any("point inward: they are turned" in note for note in capture.notes)
    for timestep in capture.timesteps:
        cloud = capture.points(timestep)
        centre = written.world_from_head[timestep.sequence][timestep.frame_id, :3, 3]
        np.testing.assert_allclose(cloud.xyz - centre, 0.1 * cloud.normals, atol=1e-6)


def test_normals_of_no_side_are_not_used(damaged, small):
    signs = np.where(np.random.default_rng(0).random(200) < 0.5, -1, 1)[:, None]
    change_clouds(damaged, lambda xyz, rgb, normals: (xyz, rgb, signs * normals))
    capture = open_074(damaged, small)
    assert any("as often as outward" in note for note in capture.notes)
    assert not capture.points(capture.timesteps[0]).normals.any()


def test_fields_that_are_not_used_are_named_once(damaged, small):
    for path in damaged.glob("074/sequences/*/pointclouds/*.pcd"):
        path.write_bytes(path.read_bytes().replace(b"z rgb normal", b"z foo normal"))
    notes = open_074(damaged, small).notes
    assert notes == ("Fields of the point clouds that are not used: foo.",)
