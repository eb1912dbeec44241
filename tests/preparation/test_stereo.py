"""Clouds of a painted ball whose surface is known."""

import numpy as np
import pytest
from PIL import Image

from npga_jax.core.errors import InputError
from npga_jax.data import Camera, Timestep
from npga_jax.data.pcd import read_pcd
from npga_jax.preparation.cloud_records import (
    CloudCheck,
    clouds_sheet,
    draw_cloud,
    read_checks,
    spread_views,
)
from npga_jax.preparation.clouds import (
    frames_without_clouds,
    make_clouds,
    wrong_clouds,
)
from npga_jax.preparation.fusion import fuse
from npga_jax.preparation.stereo import View, depth_maps, middle_of, neighbours_of

RADIUS, CENTRE = 0.1, np.array([0.02, -0.01, 0.03])
WIDTH, HEIGHT, FOCAL = 120, 140, 520.0
ANGLES = (-35, -18, 0, 18, 35)


def look_from(degrees: float, height: float = 0.0) -> np.ndarray:
    """World-to-camera, a metre away, OpenCV."""
    a = np.deg2rad(degrees)
    place = np.array([np.sin(a), height, np.cos(a)])
    z = -place / np.linalg.norm(place)
    x = np.cross([0, -1, 0], z)
    x /= np.linalg.norm(x)
    rotation = np.stack([x, np.cross(z, x), z])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, -rotation @ place
    return matrix


def paint(points: np.ndarray) -> np.ndarray:
    """A colour for each place on the ball, the same from everywhere: [..., 3]."""
    waves = np.random.default_rng(0).normal(size=(3, 24)) * 170
    phases = np.random.default_rng(1).uniform(0, 6.3, (24, 3))
    shade = np.cos((points @ waves)[..., None] + phases).sum(-2)
    return np.clip(0.5 + 0.07 * shade, 0, 1)


def see(world2cam: np.ndarray, name: str, noise: float = 0.0) -> View:
    K = np.array([[FOCAL, 0, WIDTH / 2 + 3], [0, FOCAL, HEIGHT / 2 - 2], [0, 0, 1]])
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(K).T
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    centre = world2cam[:3, :3] @ CENTRE + world2cam[:3, 3]
    nearest = rays @ centre
    rest = RADIUS**2 - (centre @ centre - nearest**2)
    hit = rest > 0
    points = rays * (nearest - np.sqrt(np.maximum(rest, 0)))[..., None]
    world = (points - world2cam[:3, 3]) @ world2cam[:3, :3]
    color = np.where(hit[..., None], paint(world), 0.85)
    color = color + noise * np.random.default_rng(2).normal(size=color.shape)
    camera = Camera(
        K.astype(np.float32), world2cam.astype(np.float32), WIDTH, HEIGHT, name
    )
    image = np.round(255 * np.clip(color, 0, 1)).astype(np.uint8)
    return View(image, np.where(hit, 255, 0).astype(np.uint8), camera)


@pytest.fixture(scope="module")
def views():
    return [see(look_from(a), str(a), noise=0.01) for a in ANGLES]


@pytest.fixture(scope="module")
def cloud(views):
    return fuse(views, depth_maps(views, workers=2), 2000)


def test_points_lie_on_the_surface(cloud):
    assert 1200 < len(cloud.xyz) <= 2200
    away = np.linalg.norm(cloud.xyz - CENTRE, axis=1)
    error = np.abs(away - RADIUS) * 1000
    assert np.median(error) < 0.5
    assert np.quantile(error, 0.95) < 2.0
    outward = (cloud.xyz - CENTRE) / away[:, None]
    cosine = np.clip((cloud.normals * outward).sum(-1), -1, 1)
    assert np.median(np.degrees(np.arccos(cosine))) < 8


def test_what_is_seen_is_covered(cloud):
    rng = np.random.default_rng(3)
    outward = rng.normal(size=(2000, 3))
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    seen = outward[outward[:, 2] > 0.7]
    gaps = np.linalg.norm(
        CENTRE + RADIUS * seen[:, None] - cloud.xyz[None], axis=-1
    ).min(axis=1)
    assert np.mean(gaps < 0.006) > 0.95
    assert (cloud.xyz[:, 2] > CENTRE[2] - 0.05).all()  # Nothing where nobody looks.


def test_colours_are_those_of_the_images(cloud):
    error = np.abs(cloud.rgb - paint(cloud.xyz))
    assert np.median(error) < 0.05


def test_views_that_see_different_things_agree_on_little(views):
    others = [
        v._replace(image=np.roll(v.image, 17 * i, axis=0)) for i, v in enumerate(views)
    ]
    assert len(fuse(others, depth_maps(others, workers=2), 2000).xyz) < 300


def test_nobody_gives_no_points(views):
    empty = [v._replace(matte=np.zeros_like(v.matte)) for v in views]
    assert len(fuse(empty, depth_maps(empty, workers=1), 2000).xyz) == 0


def test_the_middle_is_where_all_look():
    matrices = [look_from(a, h) for a, h in ((-40, 0.1), (0, -0.2), (30, 0.0))]
    np.testing.assert_allclose(middle_of(matrices), 0, atol=1e-6)


def test_neighbours_are_near_but_not_beside():
    matrices = [look_from(a) for a in (0, 2, 12, 25, 50, 80)]
    found = neighbours_of(matrices, np.zeros(3))
    assert found[0].tolist() == [2, 3, 4, 5]  # The camera at 2 degrees is too near.
    assert set(found[5].tolist()) == {4, 3, 2, 1}


class Rig:
    """A capture of one frame."""

    subject = "ball"
    sequences = ("FREE",)
    timesteps = (Timestep(0, "FREE", 6),)
    width, height = WIDTH, HEIGHT

    def __init__(self, views, root, has_mattes=True):
        self.root = root
        self.views = {v.camera.camera_id: v for v in views}
        self.cameras = tuple(self.views)
        self.has_mattes = has_mattes

    def has_points(self, timestep):
        return False

    def camera(self, timestep, camera_id):
        return self.views[camera_id].camera

    def rgb(self, timestep, camera_id):
        return self.views[camera_id].image

    def alpha(self, timestep, camera_id):
        return self.views[camera_id].matte


def test_a_file_per_frame_is_written(views, cloud, tmp_path):
    rig = Rig(views, tmp_path)
    found = make_clouds(
        rig, tmp_path, rig.timesteps, num_points=2000, workers=2, progress=False
    )
    written = read_pcd(tmp_path / "sequences/FREE/pointclouds/frame_00006.pcd")
    np.testing.assert_allclose(written.xyz, cloud.xyz, atol=1e-6)
    np.testing.assert_allclose(written.rgb, cloud.rgb, atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(written.normals, cloud.normals, atol=1e-6)
    assert [c.num_points for c in found.values()] == [len(cloud.xyz)]
    assert read_checks(tmp_path)["FREE", 6].num_points == len(cloud.xyz)
    with Image.open(clouds_sheet(tmp_path)) as sheet:
        assert sheet.width == 4 * 160


def test_a_drawing_has_points_where_the_ball_is(views, cloud):
    shown = spread_views(views[::-1], 3)
    assert [v.camera.camera_id for v in shown] in (
        ["-35", "0", "35"],
        ["35", "0", "-35"],
    )
    dark = views[2]._replace(image=np.zeros_like(views[2].image))
    drawn = draw_cloud(dark, cloud).any(axis=-1)
    assert drawn.sum() > 500
    assert (views[2].matte[drawn] > 127).mean() > 0.99


def test_sequences_with_clouds_of_ones_own_are_left_alone(tmp_path):
    class Clouds:
        timesteps = tuple(
            Timestep(i, s, i % 2) for i, s in enumerate(("A", "A", "B", "B", "C", "C"))
        )
        there = frozenset({("A", 0), ("B", 0)})

        def has_points(self, timestep):
            return (timestep.sequence, timestep.frame_id) in self.there

    ours = tmp_path / "sequences/B/pointclouds/frame_00000.pcd"
    ours.parent.mkdir(parents=True)
    ours.touch()  # An earlier run ended here.
    lacking = frames_without_clouds(Clouds(), tmp_path, ("A", "B", "C"))
    assert [(t.sequence, t.frame_id) for t in lacking] == [
        ("B", 1),
        ("C", 0),
        ("C", 1),
    ]


def test_what_cannot_be_made_is_refused(views, tmp_path):
    options = {"num_points": 2000, "workers": 1, "progress": False}
    with pytest.raises(InputError, match="need mattes"):
        make_clouds(
            Rig(views, tmp_path, has_mattes=False), tmp_path, Rig.timesteps, **options
        )
    with pytest.raises(InputError, match="need 3 cameras or more; ball has 2"):
        make_clouds(Rig(views[:2], tmp_path), tmp_path, Rig.timesteps, **options)
    assert not list(tmp_path.iterdir())


def test_what_makes_a_cloud_look_wrong():
    frames = [Timestep(i, "FREE", i) for i in range(5)]
    found = {t: CloudCheck(9000, 1.0) for t in frames}
    assert wrong_clouds(found) == {}
    found[frames[3]] = CloudCheck(3000, 1.0)
    found[frames[4]] = CloudCheck(20, 1.0)
    assert wrong_clouds(found) == {
        frames[3]: "3,000 points, usually 9,000",
        frames[4]: "20 points that views agree on: no cloud",
    }
