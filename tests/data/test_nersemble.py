import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.data.capture import Capture
from npga_jax.data.nersemble_survey import survey_nersemble
from npga_jax.data.opening import open_capture
from npga_jax.data.settings import CaptureConfig
from tests.synthetic_capture import (
    SyntheticCapture,
    write_capture,
    write_driving,
    write_json,
    write_video,
)

FRONT = "222200037"


def read_params(root: Path) -> dict:
    return json.loads((root / "074/calibration/camera_params.json").read_text())


def write_params(root: Path, content: dict) -> None:
    write_json(root / "074/calibration/camera_params.json", content)


def open_074(root: Path, cfg: CaptureConfig, **changes: object) -> Capture:
    return open_capture("074", root, replace(cfg, **changes), progress=False)


def project(capture: Capture, camera_id: str, xyz: np.ndarray) -> np.ndarray:
    camera = capture.camera(capture.timesteps[0], camera_id)
    posed = xyz @ camera.world2cam[:3, :3].T + camera.world2cam[:3, 3]
    uvw = posed @ camera.K.T
    return uvw[:, :2] / uvw[:, 2:]


def test_capture_lists_what_was_written(capture, written):
    assert capture.cameras == written.cameras
    assert capture.sequences == written.sequences
    assert [(t.index, t.frame_id) for t in capture.timesteps] == [
        (i, i % 4) for i in range(8)
    ]
    assert (capture.width, capture.height) == (16, 24)
    assert capture.expr_dim == 3 and capture.driving_model == "test"
    assert capture.fps == 24 and capture.frame_stride == 1 and not capture.notes


def test_known_points_project_to_known_pixels(capture, written):
    xyz = np.random.default_rng(1).uniform(-0.1, 0.1, (50, 3))
    for camera_id in written.cameras:
        expected = written.project(xyz, camera_id) / 2  # Decoded at half resolution.
        assert np.abs(project(capture, camera_id, xyz) - expected).max() < 1e-3


def test_K_per_camera_is_for_the_videos_as_they_are(tmp_path, fresh):
    truth = write_capture(tmp_path, is_K_per_camera=True, sequences=("FREE",))
    capture = open_074(tmp_path, fresh)
    xyz = np.random.default_rng(1).uniform(-0.1, 0.1, (50, 3))
    for camera_id in truth.cameras:
        expected = truth.project(xyz, camera_id) / 2
        assert np.abs(project(capture, camera_id, xyz) - expected).max() < 1e-3


@pytest.mark.parametrize("width", [16, 32])
def test_the_ball_is_where_its_centre_projects(written, small, width):
    capture = open_074(written.root, small, width=width)
    for timestep in capture.timesteps:
        center = capture.driving(timestep).world_from_head[None, :3, 3]
        for camera_id in capture.cameras:
            alpha = capture.alpha(timestep, camera_id) / 255.0
            y, x = np.mgrid[: capture.height, : capture.width] + 0.5
            centroid = np.array([(x * alpha).sum(), (y * alpha).sum()]) / alpha.sum()
            expected = project(capture, camera_id, center)[0]
            assert np.abs(centroid - expected).max() < 0.015 * width


def test_images_are_area_averages_of_the_video(written, small):
    full = open_074(written.root, small, width=32)
    half = open_074(written.root, small)
    timestep = full.timesteps[1]
    image = full.rgb(timestep, FRONT).astype(float)
    blocks = image.reshape(24, 2, 16, 2, 3).mean((1, 3))
    assert np.abs(half.rgb(timestep, FRONT) - blocks).max() <= 0.5 + 1e-6
    assert image.dtype != np.uint8 and half.rgb(timestep, FRONT).dtype == np.uint8


def test_frames_come_from_their_own_video_and_time(capture, written):
    for timestep in capture.timesteps:
        expr = written.expr[timestep.sequence][timestep.frame_id]
        color = 255 * (0.2 + 0.7 * expr)
        ball = capture.rgb(timestep, FRONT)[capture.alpha(timestep, FRONT) == 255]
        brightest = ball.max(0)
        assert np.abs(brightest - color).max() < 12
        np.testing.assert_allclose(capture.driving(timestep).expr, expr, atol=1e-6)


def test_points_are_on_the_ball(capture, written):
    for timestep in capture.timesteps:
        points = capture.points(timestep)
        center = written.world_from_head[timestep.sequence][timestep.frame_id, :3, 3]
        np.testing.assert_allclose(points.xyz - center, 0.1 * points.normals, atol=1e-6)


def test_missing_point_cloud_is_none(damaged, small):
    (damaged / "074/sequences/FREE/pointclouds/frame_00002.pcd").unlink()
    capture = open_074(damaged, small)
    timestep = next(
        t for t in capture.timesteps if (t.sequence, t.frame_id) == ("FREE", 2)
    )
    assert capture.points(timestep) is None


def test_stride_keeps_every_nth_frame(written, fresh):
    capture = open_074(written.root, fresh, frame_stride=3)
    everything = open_074(written.root, fresh)
    assert [t.frame_id for t in capture.timesteps] == [0, 3, 0, 3]
    assert capture.fps == 8
    last, same = capture.timesteps[-1], everything.timesteps[-1]
    assert (last.sequence, last.frame_id) == (same.sequence, same.frame_id)
    np.testing.assert_array_equal(capture.rgb(last, FRONT), everything.rgb(same, FRONT))
    np.testing.assert_array_equal(
        capture.labels(last, FRONT), everything.labels(same, FRONT)
    )


def test_automatic_stride_leaves_24_frames_a_second(tmp_path, fresh):
    write_capture(tmp_path, fps=73, num_frames=7, sequences=("FREE",))
    capture = open_074(tmp_path, fresh)
    assert capture.frame_stride == 3
    assert [t.frame_id for t in capture.timesteps] == [0, 3, 6]
    assert capture.fps == pytest.approx(73 / 3, rel=1e-3)


def test_sequences_and_cameras_can_be_ignored(written, small):
    capture = open_074(
        written.root,
        small,
        ignore_sequences=("EXP-2", "SEN-07"),
        ignore_cameras=("222200042",),
    )
    assert capture.sequences == ("FREE",)
    assert capture.cameras == ("222200037", "222200046")
    assert any("SEN-07" in note for note in capture.notes)


def test_other_folders_are_ignored_with_a_note(damaged, small):
    for name in ("BACKGROUND", "my_stuff", "EXP-9-jaw-2"):
        (damaged / "074/sequences" / name).mkdir()
    notes = " ".join(open_074(damaged, small).notes)
    assert "my_stuff" in notes and "EXP-9-jaw-2" in notes
    assert "BACKGROUND" not in notes


def test_missing_mattes_and_labels_are_none_with_a_note(tmp_path, fresh):
    write_capture(tmp_path, sequences=("FREE",), with_alpha=False, with_labels=False)
    capture = open_074(tmp_path, fresh)
    assert capture.alpha(capture.timesteps[0], FRONT) is None
    assert capture.labels(capture.timesteps[0], FRONT) is None
    assert len(capture.notes) == 2


def test_camera_missing_in_one_sequence_is_an_error_with_a_way_out(damaged, small):
    (damaged / f"074/sequences/FREE/images/cam_{FRONT}.mp4").unlink()
    with pytest.raises(InputError, match=f"ignore-cameras {FRONT}.*ignore-seq.* FREE"):
        open_074(damaged, small)
    assert FRONT not in open_074(damaged, small, ignore_cameras=(FRONT,)).cameras
    assert FRONT in open_074(damaged, small, ignore_sequences=("FREE",)).cameras


def test_camera_missing_everywhere_is_only_a_note(damaged, small):
    for path in damaged.glob("074/sequences/*/images/cam_222200046.mp4"):
        path.unlink()
    capture = open_074(damaged, small)
    assert capture.cameras == ("222200037", "222200042")
    assert "222200046" in capture.notes[0]


def test_matte_missing_for_one_camera_is_an_error(damaged, small):
    (damaged / f"074/sequences/FREE/alpha_maps/cam_{FRONT}.mp4").unlink()
    with pytest.raises(InputError, match=rf"FREE/alpha_maps lacks {FRONT}"):
        open_074(damaged, small)


def test_sequence_without_mattes_beside_others_is_an_error_with_ways_out(
    damaged, small
):
    shutil.rmtree(damaged / "074/sequences/FREE/alpha_maps")
    with pytest.raises(InputError) as error:
        open_074(damaged, small)
    message = str(error.value)
    assert message.startswith("FREE has no alpha_maps but 1 other sequence")
    assert "--capture.ignore-sequences FREE" in message
    assert "--capture.no-mattes" in message
    capture = open_074(damaged, small, ignore_sequences=("FREE",))
    assert capture.has_mattes
    capture = open_074(damaged, small, mattes=False)
    assert not capture.has_mattes
    assert all(capture.alpha(t, FRONT) is None for t in capture.timesteps)


def test_a_camera_without_a_matte_may_be_left_out_or_all_mattes(damaged, small):
    (damaged / f"074/sequences/FREE/alpha_maps/cam_{FRONT}.mp4").unlink()
    ways = f"--capture.ignore-cameras {FRONT}, or pass --capture.no-mattes"
    with pytest.raises(InputError, match=ways):
        open_074(damaged, small)
    assert open_074(damaged, small, ignore_cameras=(FRONT,)).has_mattes
    assert not open_074(damaged, small, mattes=False).has_mattes


def test_suffixes_may_be_in_capitals(damaged, fresh):
    for path in [*damaged.glob("074/sequences/*/*/*.*")]:
        path.rename(path.with_suffix(path.suffix.upper()))
    for path in damaged.glob("074/sequences/*/tracking/*.NPZ"):
        path.rename(path.with_suffix(".npz"))
    capture = open_074(damaged, fresh)
    assert len(capture.timesteps) == 8 and not capture.notes
    timestep = capture.timesteps[-1]
    assert capture.has_mattes and capture.labels(timestep, FRONT) is not None
    assert capture.points(timestep) is not None


def test_videos_of_another_suffix_are_named(damaged, small):
    for path in damaged.glob("074/sequences/FREE/images/cam_*.mp4"):
        path.rename(path.with_suffix(".mov"))
    notes = open_074(damaged, small, held_out_sequence="EXP").notes
    assert f"FREE has no images/cam_*.mp4 (but cam_{FRONT}.mov): ignored." in notes


def test_clouds_are_found_by_the_number_in_their_name(damaged, small):
    folder = damaged / "074/sequences/FREE/pointclouds"
    for frame in range(4):
        name = ("frame_0", "frame_01", "frame_000002", "cloud_3")[frame]
        (folder / f"frame_{frame:05d}.pcd").rename(folder / f"{name}.pcd")
    capture = open_074(damaged, small)
    free = [t for t in capture.timesteps if t.sequence == "FREE"]
    assert [capture.has_points(t) for t in free] == [True, True, True, False]
    assert [capture.points(t) is not None for t in free] == [True, True, True, False]
    assert any("frame_NUMBER.pcd, like cloud_3.pcd" in note for note in capture.notes)
    shutil.copy(folder / "frame_0.pcd", folder / "frame_00.pcd")
    with pytest.raises(
        InputError, match=r"frame_0\.pcd and frame_00\.pcd .*same frame"
    ):
        open_074(damaged, small)


def test_missing_tracking_says_what_to_supply(damaged, small):
    (damaged / "074/sequences/FREE/tracking/blendshapes.npz").unlink()
    with pytest.raises(InputError, match=r"FREE has no driving codes.*frame_id, expr"):
        open_074(damaged, small)


def test_frames_without_a_code_are_left_out(damaged, small, written):
    write_driving(
        damaged / "074/sequences/FREE/tracking/blendshapes.npz",
        frame_id=np.array([3, 1]),
        expr=written.expr["FREE"][[3, 1]],
        world_from_head=written.world_from_head["FREE"][[3, 1]],
    )
    capture = open_074(damaged, small)
    free = [t for t in capture.timesteps if t.sequence == "FREE"]
    assert [t.frame_id for t in free] == [1, 3]
    assert any("2 frames of FREE" in note for note in capture.notes)
    expr = capture.driving(free[0]).expr
    np.testing.assert_allclose(expr, written.expr["FREE"][1], atol=1e-6)


def test_codes_of_two_models_are_an_error(damaged, small, written):
    write_driving(
        damaged / "074/sequences/FREE/tracking/blendshapes.npz",
        expr=np.zeros((4, 5)),
        world_from_head=written.world_from_head["FREE"],
    )
    with pytest.raises(InputError, match="same model"):
        open_074(damaged, small)


@pytest.mark.parametrize(
    ("intrinsics", "message"),
    [
        ([[1, 0], [0, 1]], "must be 3x3, but is 2x2"),
        ([[1, 0, 0], [0, float("nan"), 0], [0, 0, 1]], "not finite"),
        ([[0, 0, 5], [0, 5, 5], [0, 0, 1]], "positive fx"),
        ({FRONT: np.eye(3).tolist()}, "lacks 222200042, 222200046"),
        ("8180", "must be 3x3"),
    ],
)
def test_wrong_intrinsics_are_an_error(damaged, small, intrinsics, message):
    write_params(damaged, read_params(damaged) | {"intrinsics": intrinsics})
    with pytest.raises(InputError, match=message):
        open_074(damaged, small)


def test_pose_that_is_no_rotation_is_an_error(damaged, small):
    params = read_params(damaged)
    params["world_2_cam"][FRONT][0][0] = 3.0
    write_params(damaged, params)
    with pytest.raises(InputError, match=f"'world_2_cam' of {FRONT} is not rigid"):
        open_074(damaged, small)


def test_uncalibrated_camera_is_an_error(damaged, small):
    params = read_params(damaged)
    del params["world_2_cam"][FRONT]
    write_params(damaged, params)
    with pytest.raises(InputError, match=f"{FRONT} has videos but is not in"):
        open_074(damaged, small)


def test_aspect_ratio_must_fit_the_calibration(damaged, small):
    write_params(damaged, read_params(damaged) | {"height": 64})
    with pytest.raises(InputError, match="aspect ratios differ"):
        open_074(damaged, small)


def test_too_large_a_width_names_the_largest(written, small):
    with pytest.raises(InputError, match=r"Pass --capture\.width 32 or less"):
        open_074(written.root, small, width=64)


def test_frame_counts_may_differ_by_one(damaged, fresh):
    path = damaged / f"074/sequences/FREE/images/cam_{FRONT}.mp4"
    frames = np.full((3, 48, 32, 3), 90, np.uint8)
    write_video(path, frames)
    capture = open_074(damaged, fresh)
    assert sum(t.sequence == "FREE" for t in capture.timesteps) == 3
    write_video(path, frames[:2])
    with pytest.raises(InputError, match=r"has 2 frames, but .* has 4"):
        open_074(damaged, fresh)


def test_colour_calibration_is_applied(damaged, fresh, written):
    swap = [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    write_json(
        damaged / "074/calibration/color_calibration.json",
        dict.fromkeys(written.cameras, swap),
    )
    plain = open_074(written.root, fresh)
    swapped = open_074(damaged, fresh)
    for timestep in plain.timesteps[:2]:
        np.testing.assert_array_equal(
            swapped.rgb(timestep, FRONT), plain.rgb(timestep, FRONT)[..., ::-1]
        )


def test_survey_reports_all_problems_at_once(damaged, small):
    write_params(damaged, {"world_2_cam": {}})
    (damaged / "074/sequences/FREE/tracking/blendshapes.npz").write_bytes(b"PK")
    (damaged / f"074/sequences/FREE/images/cam_{FRONT}.mp4").write_bytes(b"no")
    problems = survey_nersemble(damaged, "074", small).problems
    assert len(problems) == 3
    with pytest.raises(InputError, match="2 more problems"):
        open_074(damaged, small)


def test_without_decoding_only_what_is_read_is_decoded(
    written: SyntheticCapture, fresh: CaptureConfig
):
    capture = open_capture("074", written.root, fresh, progress=False, decode=False)
    assert not fresh.cache_dir.exists()
    assert len(capture.timesteps) == 8
    first = [capture.rgb(capture.timesteps[4], FRONT)]
    first.append(capture.alpha(capture.timesteps[4], FRONT))
    first.append(capture.labels(capture.timesteps[4], FRONT))
    assert not fresh.cache_dir.exists()  # First frames are read alone.
    capture.rgb(capture.timesteps[5], FRONT)
    assert [p.name for p in fresh.cache_dir.rglob("*.npy")] == [f"cam_{FRONT}.rgb.npy"]
    whole = open_capture("074", written.root, fresh, progress=False)
    for kind, frame in zip(("rgb", "alpha", "labels"), first, strict=True):
        read = getattr(whole, kind)(whole.timesteps[4], FRONT)
        np.testing.assert_array_equal(frame, read)


def test_benchmark_download_is_found_in_nvs(written, small, tmp_path):
    (tmp_path / "nvs").symlink_to(written.root)
    assert len(open_074(tmp_path, small).timesteps) == 8
