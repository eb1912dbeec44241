"""`experiments/reenact.py`: who drives whom, with an avatar that only takes notes."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from npga_jax.app import cli
from npga_jax.app.opened import Opened
from npga_jax.data.opening import open_capture
from npga_jax.data.settings import CaptureConfig
from npga_jax.data.splits import holdout_split
from npga_jax.training.artefact import make_avatar
from npga_jax.training.building import default_method
from npga_jax.training.settings import TrainConfig
from tests.data import layouts
from tests.synthetic_capture import write_capture, write_driving

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SHADE = 0.25


class Notes:
    """Renders grey images, and remembers what it was asked for."""

    def __init__(self):
        self.expr, self.poses = [], []

    def __call__(self, expr, world_from_head, viewmats, Ks, width, height):
        self.expr.append(expr)
        self.poses.append(world_from_head)
        return np.full((1, height, width, 3), SHADE, np.float32)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The avatar's person 074, and a driver 104 with narrower videos."""
    root = tmp_path_factory.mktemp("reenact")
    target = write_capture(root, "074", num_points=5)
    driver = write_capture(
        root, "104", num_points=5, num_frames=5, width=16, height=24, seed=1
    )
    return root, target, driver


@pytest.fixture
def script(monkeypatch, world):
    return make_script(monkeypatch, world[0], "074", driving="blendshapes")


def make_script(monkeypatch, root, subject, *, driving):
    """The script, with an avatar of a subject."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.setattr("npga_jax.core.runtime.configure", lambda **_: None)
    import reenact

    used = CaptureConfig(width=32, driving=driving, cache_dir=root / "cache")
    cfg = TrainConfig(subject=subject, data_root=root, capture=used)
    capture = open_capture(subject, root, used, progress=False, decode=False)
    avatar = make_avatar(
        *(cfg, default_method(cfg), None, None, capture),
        holdout_split(capture, "FREE", "222200037"),
        steps=0,
        environment={},
    )
    # It takes the place of what is made when it is first asked for.
    reenact.notes = avatar.__dict__["renderer"] = Notes()
    reenact.avatar = avatar
    opened = Opened(avatar, cfg, root / "run")
    monkeypatch.setattr("npga_jax.app.open_avatar", lambda *_, **__: opened)
    return reenact


def calmest(codes) -> int:
    return int(np.argmin(np.linalg.norm(codes, axis=1)))


def pose_at_rest(target) -> np.ndarray:
    """Of the calmest frame that was trained on."""
    row = calmest(target.expr["EXP-2-eyes"])
    return target.world_from_head["EXP-2-eyes"][row]


def drive(script, output, *options, driver="--driver-subject=104"):
    options = [f"--run={output.parent}", f"--output={output}", driver, *options]
    cli.run(script.main, script.ReenactConfig, argv=options)
    with av.open(str(output)) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def test_codes_are_taken_as_they_are_and_the_driver_is_shown(script, world, tmp_path):
    root, target, driver = world
    frames = drive(script, tmp_path / "a.mp4", f"--cache-dir={root / 'cache'}")
    np.testing.assert_allclose(script.notes.expr, driver.expr["FREE"], rtol=1e-6)
    rest = pose_at_rest(target)
    np.testing.assert_allclose(script.notes.poses, np.stack([rest] * 5), atol=1e-6)
    assert len(frames) == 5 and frames[0].shape == (48 + 20, 64, 3)
    for frame in frames:
        picture = frame[20:].astype(int)
        np.testing.assert_allclose(picture[:, 36:], 255 * SHADE, atol=3)
        # The driver's ball on white.
        assert picture[:4, :28].min() > 240 and picture[20:32, 12:20].min() < 230
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    assert sheet.shape == (2 * (48 + 20), 5 * 32, 3)


def test_poses(script, world, tmp_path):
    _, target, driver = world
    own, theirs = target.world_from_head["FREE"], driver.world_from_head["FREE"]
    drive(script, tmp_path / "a.mp4", "--pose=target")
    np.testing.assert_allclose(script.notes.poses, own[[0, 1, 2, 3, 2]], atol=1e-6)
    script.notes.poses.clear()
    drive(script, tmp_path / "a.mp4", "--pose=driver")
    moved = pose_at_rest(target) @ np.linalg.inv(theirs[0]) @ theirs
    np.testing.assert_allclose(script.notes.poses, moved, atol=1e-5)


def test_smooth_and_relative_codes(script, world, tmp_path):
    _, target, driver = world
    codes, own = driver.expr["FREE"], target.expr["EXP-2-eyes"]
    drive(script, tmp_path / "a.mp4", "--smooth=0.5")
    np.testing.assert_allclose(
        script.notes.expr[1], (codes[0] + codes[1]) / 2, rtol=1e-5
    )
    script.notes.expr.clear()
    drive(script, tmp_path / "a.mp4", "--neutral")
    expected = codes - codes[calmest(codes)] + own[calmest(own)]
    np.testing.assert_allclose(script.notes.expr, expected, atol=1e-5)


def test_a_file_alone_shows_the_avatar_alone(script, world, tmp_path, capsys):
    _, _, driver = world
    path = tmp_path / "codes.npz"
    codes = driver.expr["FREE"][:3]
    poses = driver.world_from_head["FREE"][:3]
    write_driving(path, expr=codes, world_from_head=poses, model="other")
    frames = drive(script, tmp_path / "a.mp4", driver=f"--driving={path}")
    assert len(frames) == 3 and frames[0].shape == (48, 32, 3)
    assert np.asarray(Image.open(tmp_path / "a.png")).shape == (68, 96, 3)
    said = capsys.readouterr()
    assert "warning: the codes are of model 'other'" in said.err
    assert "3 frames; stills in" in said.out


def test_frames_that_the_video_lacks_are_left_out(script, world, tmp_path):
    _, _, driver = world
    path = tmp_path / "codes.npz"
    poses = driver.world_from_head["FREE"][:3]
    write_driving(
        path,
        expr=driver.expr["FREE"][:3],
        world_from_head=poses,
        frame_id=np.array([3, 4, 5]),
    )
    assert len(drive(script, tmp_path / "a.mp4", f"--driving={path}")) == 2
    write_driving(path, expr=np.ones((3, 3)), world_from_head=poses, frame_id=[7, 8, 9])
    with pytest.raises(SystemExit):
        drive(script, tmp_path / "b.mp4", f"--driving={path}")
    assert not (tmp_path / "b.mp4").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--driver-subject="], "nobody drives"),
        (["--smooth=1"], "--smooth is 1.0"),
        (["--smooth=nan"], "--smooth is nan"),
        (["--output=a.mov"], "does not end in .mp4"),
        (["--fps=0"], "--fps is 0"),
        (["--width=8"], "--width is 8"),
        (["--camera=1"], "no camera '1'"),
        (["--driver-subject=999"], "subject '999'"),
        (["--sequence=SEN"], "no sequence 'SEN'"),
        (["--driving={}/none.npz"], "none.npz; expected an .npz of driving codes"),
        (["--driving={}/wide.npz"], "codes of length 4 of model 'test'; this avatar"),
    ],
)
def test_mistakes(script, world, tmp_path, capsys, options, message):
    root, _, _ = world
    write_driving(
        root / "wide.npz", expr=np.ones((2, 4)), world_from_head=[np.eye(4)] * 2
    )
    with pytest.raises(SystemExit) as end:
        drive(script, tmp_path / "a.mp4", *(o.format(root) for o in options))
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "error: " in error and message in error
    assert not list(tmp_path.iterdir()) and not script.notes.expr


def test_missing_codes_say_how_to_make_them(script, world, tmp_path, capsys):
    root, _, _ = world
    capture = write_capture(root, "105", num_points=5, width=16, height=24)
    (capture.folder / "sequences/FREE/tracking/blendshapes.npz").unlink()
    with pytest.raises(SystemExit):
        drive(script, tmp_path / "a.mp4", driver="--driver-subject=105")
    error = capsys.readouterr().err
    assert "FREE of subject 105 has no codes blendshapes.npz" in error
    assert "experiments/track.py --subject 105" in error


def test_drivers_of_other_layouts_bring_their_own_codes(monkeypatch, world, tmp_path):
    root, target, _ = world
    used = CaptureConfig(width=32, cache_dir=tmp_path / "cache")
    source = open_capture("074", root, used, progress=False)
    union = layouts.write_vhap(tmp_path / "exports", source)
    script = make_script(monkeypatch, union.parent, union.name, driving="flame")
    driver = f"--driver-subject={union.name}"
    frames = drive(script, tmp_path / "a.mp4", driver=driver)
    codes = np.stack(script.notes.expr)
    np.testing.assert_allclose(codes[:, :3], target.expr["FREE"], atol=1e-6)
    assert codes.shape == (4, 15)
    # The driver's ball on white.
    assert frames[0][20:24, :28].min() > 240 and frames[0][40:50, 12:20].min() < 230
