"""One capture in every layout: cameras, poses, images and codes are the same."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from npga_jax.core.errors import InputError
from npga_jax.data import flame
from npga_jax.data.driving import tracked_folder
from npga_jax.data.location import prepared_folder
from npga_jax.data.opening import (
    open_capture,
    open_located,
    sequence_names,
    sequences_to_track,
    tracking_output,
)
from npga_jax.data.settings import CaptureConfig
from npga_jax.data.splits import holdout_split
from tests.data import layouts
from tests.scripts import run_script
from tests.synthetic_capture import SEQUENCES, write_capture, write_driving

EYES, FREE = SEQUENCES
WIDTH = 32


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    return CaptureConfig(width=WIDTH, cache_dir=tmp_path_factory.mktemp("layouts"))


@pytest.fixture(scope="module")
def source(written, cfg):
    """The capture in NeRSemble's layout, which the others are written from."""
    return open_located(written.root, written.subject, cfg, progress=False)


@pytest.fixture(scope="module")
def roots(source, tmp_path_factory):
    """Folders in every layout, by the name of the layout and what is special."""
    root = tmp_path_factory.mktemp("roots")
    made = {"vhap-union": layouts.write_vhap(root / "vhap", source)}
    made["vhap-all"] = root / "vhap"
    made["vhap-one"] = root / "vhap" / layouts.export_name(EYES)
    made["vhap-top"] = layouts.write_vhap(root / "top", source, cy_from="top")
    made["nerfstudio"] = root / "studio"
    layouts.write_moment(root / "studio", source, source.timesteps[1])
    for name, binary in (("colmap-text", False), ("colmap-binary", True)):
        made[name] = root / name
        layouts.write_colmap(root / name, source, source.timesteps[1], binary=binary)
    made["diffusion-avatars"] = root / "074"
    layouts.write_diffusion_avatars(root / "074", source)
    return made


def opened(folder, cfg, **changes):
    return open_located(folder.parent, folder.name, replace(cfg, **changes))


def match(capture, source, *, spacing=1, moment=None):
    """Timesteps of a capture with those of the source that they were written from."""
    own = {(t.sequence, t.frame_id): t for t in source.timesteps}
    for t in capture.timesteps:
        key = (t.sequence, t.frame_id // spacing)
        yield t, moment if moment is not None else own[key]


CASES = [
    ("vhap-union", "flame", 1),
    ("vhap-all", "flame", 1),
    ("vhap-top", "flame", 1),
    ("diffusion-avatars", "flame", 3),
    ("diffusion-avatars", "nphm200", 3),
]


@pytest.mark.parametrize("name, driving, spacing", CASES)
def test_heads_are_seen_where_they_were(roots, source, cfg, name, driving, spacing):
    edge = "top" if name == "vhap-top" else "bottom"
    capture = opened(roots[name], cfg, driving=driving, principal_point=edge)
    points = np.random.default_rng(0).normal(0, 0.1, (50, 3))
    pairs = list(match(capture, source, spacing=spacing))
    assert len(pairs) == len(source.timesteps)
    assert capture.cameras == source.cameras
    for t, own in pairs:
        ours, theirs = capture.driving(t), source.driving(own)
        np.testing.assert_allclose(ours.expr[:3], theirs.expr, atol=1e-6)
        assert not ours.expr[3:].any()
        for camera in source.cameras:
            a = pixels(capture.camera(t, camera), ours.world_from_head, points)
            b = pixels(source.camera(own, camera), theirs.world_from_head, points)
            assert np.abs(a - b).max() < 1e-3


@pytest.mark.parametrize("name", ["nerfstudio", "colmap-text", "colmap-binary"])
def test_cameras_of_a_moment_are_those_that_were_written(roots, source, cfg, name):
    capture = opened(roots[name], cfg)
    (t,) = capture.timesteps
    points = np.random.default_rng(0).normal(0, 0.1, (50, 3))
    assert set(capture.cameras) == set(source.cameras)
    for camera in source.cameras:
        a = pixels(capture.camera(t, camera), np.eye(4), points)
        b = pixels(source.camera(source.timesteps[1], camera), np.eye(4), points)
        assert np.abs(a - b).max() < 1e-3


def pixels(camera, world_from_head, points):
    matrix = camera.world2cam.astype(np.float64) @ world_from_head
    uvw = (points @ matrix[:3, :3].T + matrix[:3, 3]) @ camera.K.T.astype(np.float64)
    return uvw[:, :2] / uvw[:, 2:]


@pytest.mark.parametrize(
    "name, spacing, tolerance",
    [
        ("vhap-union", 1, 0.0),
        ("nerfstudio", 1, 0.0),
        ("colmap-binary", 1, 0.0),
        ("diffusion-avatars", 3, 8.0),
    ],
)
def test_images_and_mattes_are_those_that_were_written(
    roots, source, cfg, name, spacing, tolerance
):
    driving = "flame" if spacing == 3 else ""
    capture = opened(roots[name], cfg, driving=driving)
    moment = None if len(capture.timesteps) > 1 else source.timesteps[1]
    for t, own in match(capture, source, spacing=spacing, moment=moment):
        for camera in source.cameras:
            alpha = source.alpha(own, camera)
            np.testing.assert_array_equal(capture.alpha(t, camera), alpha)
            rgb = source.rgb(own, camera)
            if name == "vhap-union":
                rgb = layouts.on_white(rgb, alpha)
            difference = np.abs(capture.rgb(t, camera).astype(int) - rgb)
            assert difference.mean() <= tolerance
            if spacing == 3:
                labels = source.labels(own, camera)
                np.testing.assert_array_equal(capture.labels(t, camera), labels)


def test_layouts_are_recognised_and_may_be_named(roots, cfg, tmp_path):
    both = tmp_path / "both"
    shutil.copytree(roots["nerfstudio"], both)
    shutil.copytree(roots["colmap-text"], both, dirs_exist_ok=True)
    with pytest.raises(InputError, match=r"several layouts \(nerfstudio, colmap\)"):
        opened(both, cfg)
    assert len(opened(both, cfg, layout="colmap").cameras) == 3
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").touch()
    with pytest.raises(InputError, match=r"no layout that is read: it holds notes.txt"):
        opened(tmp_path / "other", cfg)


def test_cameras_of_a_union_move_between_sequences(roots, cfg):
    """Trap 4: the same camera is elsewhere in each sequence."""
    capture = opened(roots["vhap-union"], cfg)
    eyes, free = (
        next(t for t in capture.timesteps if t.sequence == s) for s in SEQUENCES
    )
    a, b = (capture.camera(t, capture.cameras[0]).world2cam for t in (eyes, free))
    assert np.abs(a - b).max() > 0.01


def test_principal_point_counts_from_the_edge_that_is_said(roots, source, cfg):
    """Trap 2: the wrong edge moves it by the offset that is printed."""
    bottom, top = (
        opened(roots["vhap-union"], cfg, principal_point=edge)
        for edge in ("bottom", "top")
    )
    first, camera = source.timesteps[0], source.cameras[0]
    apart = top.camera(first, camera).K[1, 2] - bottom.camera(first, camera).K[1, 2]
    assert abs(apart) == pytest.approx(2 * 0.03 * source.height, abs=1e-3)
    assert any(f"at most {abs(apart):.2f} pixels" in note for note in bottom.notes)


def test_rotation_means_what_the_layout_means():
    """Trap 5: an axis times an angle within FLAME, Euler angles outside of it."""
    rotation = np.array([[0.3, -0.4, 0.2]])
    zero = np.zeros((1, 3))
    axis = flame.poses_within(rotation, zero, zero)[0]
    angle = np.linalg.norm(rotation)
    assert np.trace(axis[:3, :3]) == pytest.approx(1 + 2 * np.cos(angle))
    # The joint stays where it is.
    np.testing.assert_allclose(
        axis[:3, :3] @ flame.ROOT_JOINT + axis[:3, 3], flame.ROOT_JOINT
    )
    euler = flame.poses_outside(rotation, np.array([2.0]), zero)[0]
    a, b, c = rotation[0]
    Rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    Ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    Rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    np.testing.assert_allclose(euler[:3, :3], 2 * Rx @ Ry @ Rz)


def test_released_codes_are_never_taken_for_ours(roots, cfg):
    """Trap 9: 200 numbers of networks that nobody has."""
    with pytest.raises(
        InputError, match=r"driving flame or --capture\.driving nphm200"
    ):
        opened(roots["diffusion-avatars"], cfg)
    capture = opened(roots["diffusion-avatars"], cfg, driving="nphm200")
    assert capture.expr_dim == 200 and capture.driving_name == "nphm200"
    assert not capture.driving_model.startswith("nphm ")


def test_frames_keep_their_numbers_and_their_rate(roots, cfg):
    """Trap 11: every third frame at 73 fps; VHAP takes 25 a second."""
    capture = opened(roots["diffusion-avatars"], cfg, driving="flame")
    assert capture.fps == pytest.approx(73 / 3) and capture.frame_stride == 3
    assert [t.frame_id for t in capture.timesteps] == 2 * [0, 3, 6, 9]
    capture = opened(roots["diffusion-avatars"], cfg, driving="flame", frame_stride=6)
    assert [t.frame_id for t in capture.timesteps] == 2 * [0, 6]
    assert opened(roots["vhap-one"], cfg, frame_stride=2).fps == 12.5


def test_sequences_are_called_by_their_names(roots, cfg):
    """Trap 10: FREE is held out by its name, or by a part of another."""
    capture = opened(roots["vhap-union"], cfg)
    assert capture.sequences == SEQUENCES
    held_out = capture.settings
    split = holdout_split(capture, held_out.held_out_sequence, held_out.held_out_camera)
    assert {v.timestep.sequence for v in split.self_reenactment} == {FREE}
    assert {c for v in split.novel_view for c in v.cameras} == {"222200037"}


def test_test_of_an_export_is_held_out(source, cfg, tmp_path):
    """Its own test sequence where there is no FREE, and its end where it is alone."""
    layouts.write_vhap(tmp_path, source)
    folder = tmp_path / layouts.export_name(EYES)
    frames = json.loads((folder / "transforms.json").read_text())["frames"]
    last = max(f["timestep_index"] for f in frames)
    for part in ("train", "test"):
        chosen = [
            f for f in frames if (f["timestep_index"] == last) == (part == "test")
        ]
        content = {"frames": chosen}
        (folder / f"transforms_{part}.json").write_text(json.dumps(content))
    capture = opened(folder, cfg)
    assert capture.sequences == (EYES, f"{EYES}_test")
    assert capture.settings.held_out_sequence == f"{EYES}_test"
    assert any("Held out is EXP-2-eyes_test" in note for note in capture.notes)


def test_moment_holds_out_a_camera_and_has_one_code(roots, source, cfg):
    capture = opened(roots["nerfstudio"], cfg, ignore_cameras=("222200037",))
    assert capture.settings.held_out_sequence == ""
    assert capture.settings.held_out_camera in capture.cameras
    split = holdout_split(capture, "", capture.settings.held_out_camera)
    assert len(split.train) == 1 and not split.self_reenactment
    driving = capture.driving(capture.timesteps[0])
    assert driving.expr.tolist() == [0] and capture.driving_name == "still"
    # The cameras look at the origin, from +z, with y up.
    np.testing.assert_allclose(driving.world_from_head, np.eye(4), atol=1e-5)


def test_worlds_of_any_scale_are_asked_for(source, cfg, tmp_path):
    folder = tmp_path / "small"
    first = source.timesteps[0]
    layouts.write_colmap(folder, source, first, binary=True, unit=0.01)
    with pytest.raises(InputError, match=r"100 m from .*perhaps.*world-unit 0\.01\."):
        opened(folder, cfg)
    with pytest.raises(InputError, match="world-unit -1: expected the metres"):
        opened(folder, cfg, world_unit=-1)
    capture = opened(folder, cfg, world_unit=0.01)
    for camera in source.cameras:
        np.testing.assert_allclose(
            capture.camera(capture.timesteps[0], camera).world2cam,
            source.camera(first, camera).world2cam,
            atol=1e-6,
        )


def test_prepared_clouds_and_labels_and_tracked_codes_are_found(
    roots, source, cfg, tmp_path
):
    cfg = replace(cfg, cache_dir=tmp_path)
    folder = roots["vhap-union"]
    prepared = prepared_folder(folder, tmp_path)
    layouts.write_clouds(prepared, source, lambda s: layouts.vhap_world(source, s))
    maps = (
        np.full((4, 48, 32), 2, np.uint8) + np.arange(4, dtype=np.uint8)[:, None, None]
    )
    place = prepared / "sequences" / EYES / "segmentation"
    place.mkdir()
    np.savez(place / "cam_222200037.npz", labels=maps)
    assert sequence_names(folder, cfg) == SEQUENCES
    assert sequences_to_track(folder, cfg) == ()
    ours = replace(cfg, driving="nphm")
    assert sequences_to_track(folder, ours) == SEQUENCES
    assert tracking_output(folder, ours) == tracked_folder(folder, tmp_path)
    untracked = open_located(folder.parent, folder.name, ours, need_driving=False)
    assert len(untracked.timesteps) == 8
    assert not untracked.has_driving(untracked.timesteps[0])
    with pytest.raises(InputError, match="no driving file nphm"):
        opened(folder, ours)
    for sequence in SEQUENCES:
        path = tracked_folder(folder, tmp_path) / sequence / "tracking/nphm.npz"
        poses = np.tile(np.eye(4), (4, 1, 1))
        write_driving(path, expr=np.ones((4, 5)), world_from_head=poses, model="nphm x")
    assert sequences_to_track(folder, ours) == ()
    with pytest.raises(InputError, match="several driving files"):
        opened(folder, cfg)
    capture = opened(folder, ours)
    assert capture.driving_model == "nphm x" and capture.driving_name == "nphm"
    assert set(capture.driving_paths) == set(SEQUENCES)
    for t, own in match(capture, source):
        cloud = capture.points(t)
        centre = source.points(own).xyz
        world = layouts.vhap_world(source, t.sequence)
        np.testing.assert_allclose(
            cloud.xyz, centre @ world[:3, :3].T + world[:3, 3], atol=1e-5
        )
    t = capture.timesteps[2]
    assert np.all(capture.labels(t, "222200037") == 4)
    assert not capture.has_labels(t, "222200046")


def test_benchmark_download_is_nersembles_layout(written, source, cfg, tmp_path):
    """Trap 1: K by serial, as it is; images on white, mattes in channel 0, clouds."""
    from npga_jax.evaluation.views import ground_truth
    from tests.synthetic_capture import write_video

    truth = write_capture(tmp_path / "nvs", is_K_per_camera=True)
    whites = {}
    for sequence in SEQUENCES:
        for camera in truth.cameras:
            own = [t for t in source.timesteps if t.sequence == sequence]
            frames = np.stack([source.rgb(t, camera) for t in own])
            mattes = np.stack([source.alpha(t, camera) for t in own])
            mattes[:, :, 10:20] //= 2  # A soft rim.
            frames = np.stack(list(map(layouts.on_white, frames, mattes)))
            place = truth.folder / "sequences" / sequence
            write_video(place / f"images/cam_{camera}.mp4", frames)
            gray = np.repeat(mattes[..., None], 3, axis=-1)
            write_video(place / f"alpha_maps/cam_{camera}.mp4", gray)
            whites[sequence, camera] = frames
    capture = open_capture("074", tmp_path, cfg, progress=False)
    points = np.random.default_rng(0).normal(0, 0.1, (50, 3))
    for t in capture.timesteps:
        assert capture.has_points(t)
        for camera in truth.cameras:
            a = pixels(capture.camera(t, camera), np.eye(4), points)
            assert np.abs(a - truth.project(points, camera)).max() < 1e-3
            white = whites[t.sequence, camera][t.frame_id]
            assert np.abs(255 * ground_truth(capture, t, camera) - white).mean() < 1.5


def damage(folder, name):
    """One thing that is wrong in a copy, and what is said of it."""
    frames = json.loads((folder / "transforms.json").read_text())["frames"]
    image = folder / frames[1]["file_path"]
    if name == "json":
        (folder / "transforms.json").write_text('{"frames": [{"camera_index": 0')
    elif name == "image":
        image.unlink()
    elif name == "pixels":
        image.write_bytes(image.read_bytes()[:60])
    elif name == "shape":
        Image.new("RGB", (32, 32)).save(folder / frames[0]["file_path"])
    elif name == "mask":
        (folder / frames[1]["fg_mask_path"]).unlink()
    elif name == "codes":
        (folder / frames[0]["flame_param_path"]).write_bytes(b"PK")
    elif name == "code":
        np.savez(folder / frames[0]["flame_param_path"], expr=np.zeros((1, 3)))
    else:
        frames[0][name] = {"fl_x": -1, "cx": None, "k1": 0.1, "transform_matrix": [1],
                           "camera_model": "OPENCV_FISHEYE"}[name]  # fmt: skip
        (folder / "transforms.json").write_text(json.dumps({"frames": frames}))


@pytest.mark.parametrize(
    "name, said",
    [
        ("json", "in no layout|cannot be read as JSON"),
        ("image", "1 of 12 images are missing, like .*00000_01.png"),
        ("pixels", "is no readable image"),
        ("shape", "aspect ratios differ"),
        ("mask", "1 of 12 mattes are missing"),
        ("codes", "cannot be read as FLAME's parameters"),
        ("code", "'translation' is not there"),
        ("fl_x", "focal lengths of frame 0 are -1"),
        ("cx", "'cx' of frame 0 is None"),
        ("k1", "'k1' is 0.1; expected none"),
        ("transform_matrix", "'transform_matrix' of frame 0 is no finite 4x4"),
        ("camera_model", "camera_model of frame 0 is 'OPENCV_FISHEYE'"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(roots, cfg, tmp_path, name, said):
    folder = tmp_path / "074"
    shutil.copytree(roots["vhap-one"], folder)
    (folder / "canonical_flame_param.npz").unlink()
    damage(folder, name)
    with pytest.raises(InputError, match=said):
        capture = opened(folder, cfg)
        capture.rgb(capture.timesteps[0], capture.cameras[1])


def test_mask_of_another_size_is_resized(roots, cfg, tmp_path):
    folder = tmp_path / "074"
    shutil.copytree(roots["vhap-one"], folder)
    for path in (folder / "fg_masks").iterdir():
        with Image.open(path) as mask:
            mask.convert("RGB").resize((64, 96)).save(path)
    capture = opened(folder, cfg)
    matte = capture.alpha(capture.timesteps[0], capture.cameras[0])
    assert matte.shape == (48, 32) and matte.max() == 255


def test_two_exports_of_a_sequence_are_refused(roots, cfg, tmp_path):
    for suffix in ("DS4", "DS2"):
        name = f"074_{EYES}_v16_{suffix}_whiteBg"
        shutil.copytree(roots["vhap-one"], tmp_path / "both" / name)
    with pytest.raises(InputError, match=rf"both of sequence {EYES}"):
        opened(tmp_path / "both", cfg)


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin"])
def test_cut_binary_models_are_refused(roots, cfg, tmp_path, name):
    folder = tmp_path / "cut"
    shutil.copytree(roots["colmap-binary"], folder)
    path = folder / "sparse/0" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=rf"{name} cannot be read as COLMAP's model"):
        opened(folder, cfg)


def test_lenses_that_distort_are_refused(roots, cfg, tmp_path):
    folder = tmp_path / "lens"
    shutil.copytree(roots["colmap-text"], folder)
    path = folder / "sparse/0/cameras.txt"
    for line, is_fine in (
        ("1 SIMPLE_RADIAL 32 48 100 16 24 0.1", False),
        ("1 SIMPLE_RADIAL 32 48 100 16 24 0", True),
        ("1 FOV 32 48 100 100 16 24 0", False),
    ):
        rest = path.read_text().splitlines()[2:]
        path.write_text("\n".join(["# Cameras", line, *rest]))
        if is_fine:
            K = (
                opened(folder, cfg)
                .camera(opened(folder, cfg).timesteps[0], "222200037")
                .K
            )
            np.testing.assert_allclose(K, [[100, 0, 16], [0, 100, 24], [0, 0, 1]])
            continue
        with pytest.raises(InputError, match="Undistort the images"):
            opened(folder, cfg)


@pytest.mark.parametrize(
    "name", ["vhap-union", "nerfstudio", "colmap-binary", "diffusion-avatars"]
)
def test_check_data_lists_every_layout(roots, cfg, tmp_path, name):
    folder = roots[name]
    command = ["--subject", folder.name, "--data-root", folder.parent]
    command += ["--capture.width", "32", "--capture.cache-dir", tmp_path / "cache"]
    command += ["--output", tmp_path / "out"]
    if name == "diffusion-avatars":
        result = run_script("experiments/check_data.py", *command)
        assert result.returncode == 2 and "several driving files" in result.stderr
        command += ["--capture.driving", "flame"]
    result = run_script("experiments/check_data.py", *command)
    assert result.returncode == 0, result.stderr
    assert "cameras      3" in result.stdout and "no contact sheet" in result.stdout


def test_alpha_channel_is_the_matte(roots, source, cfg, tmp_path):
    folder = tmp_path / "studio"
    shutil.copytree(roots["nerfstudio"], folder)
    content = json.loads((folder / "transforms.json").read_text())
    for frame in content["frames"]:
        with (
            Image.open(folder / frame["file_path"]) as image,
            Image.open(folder / frame.pop("mask_path")) as mask,
        ):
            image.putalpha(mask)
            image.save(folder / frame["file_path"])
    (folder / "transforms.json").write_text(json.dumps(content))
    capture = opened(folder, cfg)
    (t,) = capture.timesteps
    own = source.timesteps[1]
    for camera in source.cameras:
        np.testing.assert_array_equal(
            capture.alpha(t, camera), source.alpha(own, camera)
        )
        np.testing.assert_array_equal(capture.rgb(t, camera), source.rgb(own, camera))
    assert not opened(folder, cfg, mattes=False).has_mattes


def test_mattes_are_for_all_images_or_none(roots, cfg, tmp_path):
    folder = tmp_path / "studio"
    shutil.copytree(roots["nerfstudio"], folder)
    content = json.loads((folder / "transforms.json").read_text())
    del content["frames"][0]["mask_path"]
    (folder / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="1 of 3 images have no matte"):
        opened(folder, cfg)
    assert opened(folder, cfg, mattes=False).has_mattes is False


def test_released_colors_are_corrected(roots, source, cfg, tmp_path):
    """Rows of colours times a matrix, plus an offset, before they are clipped."""
    folder = tmp_path / "074"
    shutil.copytree(roots["diffusion-avatars"], folder)
    camera = source.cameras[0]
    place = folder / f"sequences/{EYES}/annotations/color_correction"
    place.mkdir()
    A = np.array([[0.5, 0.1, 0, 0.1], [0, 0.6, 0, 0], [0.2, 0, 0.4, 0]])
    np.save(place / f"{camera}.npy", A)
    before = opened(roots["diffusion-avatars"], cfg, driving="flame")
    after = opened(folder, cfg, driving="flame")
    t = after.timesteps[0]
    expected = before.rgb(t, camera) / 255 @ A[:, :3] + A[:, 3]
    difference = after.rgb(t, camera) / 255 - np.clip(expected, 0, 1)
    assert np.abs(difference).max() < 0.003


def test_hints_know_all_layouts(roots, cfg):
    root = roots["nerfstudio"].parent
    with pytest.raises(InputError, match=r"Subjects there: 074, .*studio"):
        open_capture("123", root, cfg, progress=False)
    with pytest.raises(InputError, match=r"is a subject itself: .* --subject studio"):
        open_capture("123", root / "studio", cfg, progress=False)


def test_moments_in_several_frames_are_refused(roots, cfg, tmp_path):
    folder = tmp_path / "studio"
    shutil.copytree(roots["nerfstudio"], folder)
    content = json.loads((folder / "transforms.json").read_text())
    for number, frame in enumerate(content["frames"]):
        frame["time"] = 0.5 * number
    (folder / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="is of 3 moments; expected one"):
        opened(folder, cfg)
