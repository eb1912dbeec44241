"""A capture of somebody's own: trained on, evaluated, resumed, and asked for again."""

import dataclasses

import numpy as np
import pytest

import npga_jax
from npga_jax.app.evaluation import evaluate_run
from npga_jax.app.opened import open_avatar
from npga_jax.core.errors import InputError
from npga_jax.data.capture import Camera, Capture, Driving, PointCloud, Timestep
from npga_jax.data.location import prepared_folder
from npga_jax.data.settings import CaptureConfig
from npga_jax.training.run_folder import read_own_parts
from npga_jax.training.runs import load_run
from tests.data import layouts
from tests.synthetic_capture import write_pcd

CAMERAS = ("left", "middle", "right")
TIMESTEPS = tuple(Timestep(i, sequence, i % 2) for i, sequence in enumerate("aabb"))


class Ball(Capture):
    """A grey ball before white, at no place on disk."""

    def camera(self, timestep, camera_id):
        world2cam = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)
        world2cam[:3, 3] = 0.1 * (CAMERAS.index(camera_id) - 1), 0, 1
        K = np.array([[60, 0, 16], [0, 60, 24], [0, 0, 1]], np.float32)
        return Camera(K, world2cam, self.width, self.height, camera_id)

    def rgb(self, timestep, camera_id):
        y, x = np.mgrid[: self.height, : self.width]
        inside = (x - 15.5) ** 2 + (y - 23.5) ** 2 < 36
        grey = np.where(inside, 100 + 20 * timestep.index, 255)
        return np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)

    def alpha(self, timestep, camera_id):
        return None

    def labels(self, timestep, camera_id):
        return None

    def driving(self, timestep):
        expr = np.array([timestep.index, 1.0], np.float32)
        return Driving(expr, np.eye(4, dtype=np.float32))

    def points(self, timestep):
        xyz = np.random.default_rng(0).normal(size=(60, 3))
        xyz *= 0.1 / np.linalg.norm(xyz, axis=-1, keepdims=True)
        return PointCloud(
            xyz.astype(np.float32), np.full((60, 3), 0.5, np.float32), None
        )


def make_capture(root) -> Ball:
    return Ball(
        subject="ball",
        root=root,
        fps=24.0,
        frame_stride=1,
        width=32,
        height=48,
        sequences=("a", "b"),
        cameras=CAMERAS,
        timesteps=TIMESTEPS,
        expr_names=("x", "y"),
        driving_model="ball",
        has_mattes=False,
    )


@pytest.fixture
def moment(tiny_run, tmp_path):
    """A capture in nerfstudio's layout, opened; it knows no FREE and no 222200037."""
    source = tiny_run.capture
    folder, cache = tmp_path / "studio", tmp_path / "cache"
    layouts.write_moment(folder, source, source.timesteps[1])
    transforms = folder / "transforms.json"
    transforms.write_text(transforms.read_text().replace("cam_222200037", "cam_7"))
    for path in folder.rglob("cam_222200037.png"):
        path.rename(path.with_name("cam_7.png"))
    place = prepared_folder(folder, cache) / "sequences/moment/pointclouds"
    cloud = source.points(source.timesteps[1])
    write_pcd(place / "frame_00000.pcd", cloud.xyz, cloud.rgb, cloud.normals)
    used = CaptureConfig(width=16, driving="still", cache_dir=cache)
    return npga_jax.open_capture("studio", tmp_path, used)


@pytest.mark.parametrize("asked", [None, "7"])
def test_an_opened_capture_is_used_as_it_was_opened(tiny_run, moment, tmp_path, asked):
    cfg = dataclasses.replace(
        tiny_run.config,
        output=tmp_path / "run",
        steps=2,
        forward=dataclasses.replace(tiny_run.config.forward, source="auto"),
        capture=CaptureConfig(**({"held_out_camera": asked} if asked else {})),
    )
    camera = asked or moment.settings.held_out_camera
    run = npga_jax.train(cfg, capture=moment)
    expected = dataclasses.replace(moment.settings, held_out_camera=camera)
    assert run.config.capture == expected
    assert expected.held_out_sequence == "" and expected.width == 16
    assert {c for v in run.split.novel_view for c in v.cameras} == {camera}
    resumed = dataclasses.replace(run.config, resume=True, output=run.folder)
    assert npga_jax.train(resumed, capture=moment).step == 2


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    root = tmp_path_factory.mktemp("ball")
    held_out = {"held_out_sequence": "b", "held_out_camera": "middle", "driving": ""}
    cfg = tiny_run.config
    cfg = dataclasses.replace(
        cfg,
        output=root / "run",
        data_root=None,
        steps=2,
        forward=dataclasses.replace(cfg.forward, source="auto"),
        capture=dataclasses.replace(cfg.capture, **held_out),
    )
    return npga_jax.train(cfg, capture=make_capture(root))


def test_it_is_decided_as_for_any_capture(run):
    """No head model: G moves the Gaussians, and has all of its reach."""
    assert run.config.subject == "ball" and run.config.forward.source == "none"
    assert run.method.forward.fit is None
    assert read_own_parts(run.folder) == ("capture",)


def test_run_asks_for_it_and_is_evaluated_with_it(run):
    with pytest.raises(InputError, match="capture that was given from Python"):
        load_run(run.folder)
    resumed = dataclasses.replace(run.config, resume=True, output=run.folder)
    with pytest.raises(InputError, match="capture that was given from Python"):
        npga_jax.train(resumed)
    with pytest.raises(InputError, match="capture that was given from Python"):
        _ = open_avatar(run.folder).capture
    opened = load_run(run.folder, capture=run.capture)
    result = evaluate_run(opened, lpips_vgg_images=0, videos=False)
    assert result["self_reenactment"]["full"]["psnr"] > 3
    assert npga_jax.load(run.folder).driving_names == ("x", "y")
