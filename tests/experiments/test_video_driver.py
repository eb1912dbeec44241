"""Videos of one camera: `track.py --video`, `reenact.py --driver-video`.

What the tracker finds is made up here (tests/tracking/test_video.py tests it): these
are about what is asked for, written, said, and refused.
"""

import json

import numpy as np
import pytest

from npga_jax.app import cli, video_driver
from npga_jax.core.errors import InputError
from npga_jax.data import load_driving
from npga_jax.io import write_video
from npga_jax.tracking import model_name, open_prior
from npga_jax.tracking.alignment import Similarity
from npga_jax.tracking.equations import Unknowns
from npga_jax.tracking.faces import Faces
from npga_jax.tracking.video import VideoTrack
from tests.experiments.test_reenact import EXPERIMENTS, drive, make_script
from tests.synthetic_capture import write_capture

FRAMES, TRACKED = 6, (0, 1, 2, 4)


@pytest.fixture
def loaded():
    return open_prior(None)


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "talk.mp4"
    shades = np.linspace(40, 200, FRAMES).astype(np.uint8)
    write_video(path, (np.full((48, 64, 3), s, np.uint8) for s in shades), 12)
    (tmp_path / "face.task").write_bytes(b"model")
    return path


@pytest.fixture
def asked(monkeypatch, loaded):
    """Takes the tracker's place; what it was asked for."""
    notes = {}

    def track_video(video, model, loaded, *, lens, smooth):
        notes.update(video=video, model=model, lens=lens, smooth=smooth)
        count = len(TRACKED)
        exp = np.tile(np.arange(count)[:, None], (1, len(loaded.exp_std)))
        unknowns = Unknowns(
            np.zeros(len(loaded.geo_std), np.float32),
            exp.astype(np.float32) * 0.01,
            np.zeros((count, 6), np.float32),
        )
        turn = np.diag([1.0, -1, -1])
        poses = [Similarity(turn, np.array([0, 0, 0.5]), 1.0)] * count
        faces = Faces(
            np.array(TRACKED), np.zeros((count, 478, 2)), FRAMES, 2, 64, 48, 12.0
        )
        return VideoTrack(
            *(np.array(TRACKED), unknowns, poses, np.full(count, 0.7)),
            *(np.array([5]), faces, lens, 1.0),
        )

    monkeypatch.setattr(video_driver, "track_video", track_video)
    monkeypatch.setattr(video_driver, "check_model", lambda path: None)
    return notes


@pytest.fixture
def track(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.setattr("npga_jax.core.runtime.configure", lambda **_: None)
    import track

    def run(*options):
        cli.run(track.main, track.TrackConfig, argv=list(options))

    return run


def test_codes_gaps_and_overlay_are_written(track, asked, video, tmp_path, capsys):
    track(
        *(f"--video={video}", f"--landmarks={tmp_path / 'face.task'}"),
        *(f"--output={tmp_path / 'out'}", "--focal=70", "--no-smooth"),
    )
    assert asked["lens"].K[0].tolist() == [70, 0, 32] and not asked["smooth"]
    codes = load_driving(tmp_path / "out/talk/tracking/nphm.npz")
    assert codes.frame_id.tolist() == list(TRACKED)
    report = json.loads((tmp_path / "out/talk/report.json").read_text())
    assert report["gaps"] == [[3, 3], [5, 5]] and report["failed"] == [5]
    assert report["num_frames"] == FRAMES and report["num_tracked"] == 4
    assert (tmp_path / "out/talk/overlay.mp4").stat().st_size > 1000
    said = capsys.readouterr()
    assert "4 of 6 frames tracked (67%)" in said.out
    assert "2 frames show other faces too" in said.err


def test_an_unknown_lens_is_guessed_and_said(track, asked, video, tmp_path, capsys):
    track(
        *(f"--video={video}", f"--landmarks={tmp_path / 'face.task'}"),
        *(f"--output={tmp_path / 'out'}", "--no-overlay"),
    )
    assert asked["lens"].K[0, 0] == pytest.approx(1.2 * 64)
    assert "focal length taken to be 77 pixels" in capsys.readouterr().out
    assert not (tmp_path / "out/talk/overlay.mp4").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--video={}/talk.mp4"], "give MediaPipe's model with --landmarks"),
        (["--video={}/none.mp4", "--landmarks={}/face.task"], "there is no video"),
        (["--video={}/face.task", "--landmarks={}/face.task"], "cut short or damaged"),
        (["--video={}/talk.mp4", "--landmarks={}/no.task"], "there is no such file"),
        (["--video={}/talk.mp4", "--landmarks={}/talk.mp4"], "expected a model of"),
        (
            ["--video={}/talk.mp4", "--landmarks={}/face.task", "--focal=-1"],
            "--focal is -1.0",
        ),
        (
            ["--video={}/talk.mp4", "--landmarks={}/face.task", "--subject=074"],
            "--subject has no effect beside --video",
        ),
        (["--landmarks={}/face.task"], "--landmarks has no effect here"),
        (["--focal=50"], "--focal has no effect here"),
    ],
)
def test_mistakes(track, video, tmp_path, capsys, options, message):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as end:
        track(*(o.format(tmp_path) for o in options))
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_a_video_drives_an_avatar_and_is_shown(
    monkeypatch, asked, loaded, video, tmp_path
):
    write_capture(tmp_path, "074", num_points=5)
    script = make_script(monkeypatch, tmp_path, "074", driving="blendshapes")
    avatar = script.avatar
    object.__setattr__(avatar, "driving_model", model_name(loaded))
    names = tuple(f"expr_{i:03d}" for i in range(len(loaded.exp_std)))
    object.__setattr__(avatar, "driving_names", names)
    object.__setattr__(avatar, "neutral", np.zeros(len(names), np.float32))
    frames = drive(
        script,
        tmp_path / "run" / "a.mp4",
        f"--landmarks={tmp_path / 'face.task'}",
        driver=f"--driver-video={video}",
    )
    assert len(frames) == len(TRACKED)
    np.testing.assert_allclose([e[0] for e in script.notes.expr], 0.01 * np.arange(4))
    # Beside the avatar: the video's own frames, those that were tracked.
    expected = np.linspace(40, 200, FRAMES)[list(TRACKED)]
    inner = [frame[38:50, 8:24].mean() for frame in frames]
    np.testing.assert_allclose(inner, expected, atol=6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--driver-video={}/talk.mp4"], "give MediaPipe's model with --landmarks"),
        (
            ["--driver-video={}/talk.mp4", "--driver-subject=104"],
            "two drivers",
        ),
        (
            ["--driver-video={}/talk.mp4", "--landmarks={}/face.task"],
            "the avatar is driven by codes of 'test'",
        ),
        (["--driving={}/a.npz", "--landmarks={}/face.task"], "have no effect here"),
    ],
)
def test_drivers_that_cannot_be(
    monkeypatch, asked, video, tmp_path, capsys, options, message
):
    write_capture(tmp_path, "074", num_points=5)
    script = make_script(monkeypatch, tmp_path, "074", driving="blendshapes")
    with pytest.raises(SystemExit) as end:
        cli.run(
            script.main,
            script.ReenactConfig,
            argv=[f"--run={tmp_path}", *(o.format(tmp_path) for o in options)],
        )
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_frames_that_fit_nothing_are_an_error(monkeypatch, asked, loaded, video):
    real = video_driver.track_video

    def nothing(*args, **options):
        track = real(*args, **options)
        return track._replace(frame_id=np.zeros(0, int), poses=[])

    monkeypatch.setattr(video_driver, "track_video", nothing)
    with pytest.raises(InputError, match="the head model fits none"):
        video_driver.follow_video(video, video, loaded, video.parent / "out")
