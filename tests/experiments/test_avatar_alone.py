"""An avatar.npz away from its run and its capture: what goes on working, what says no.

The subjects' folder that is given does not exist: whoever looks for the capture fails.
"""

import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from npga_jax.training.artefact import AVATAR_FILE
from tests.scripts import run_script
from tests.synthetic_capture import write_driving


@pytest.fixture
def alone(tiny_run, tmp_path) -> tuple[Path, tuple[str, str]]:
    """A folder that holds an avatar and codes for it, and the options that name it."""
    path = tmp_path / AVATAR_FILE
    shutil.copy(tiny_run.folder / AVATAR_FILE, path)
    capture = tiny_run.capture
    write_driving(
        tmp_path / "codes.npz",
        expr=np.array([[0.1, 0.2, 0.3], [0.6, 0.1, 0.0]], np.float32),
        world_from_head=np.stack([np.eye(4, dtype=np.float32)] * 2),
        model=capture.driving_model,
    )
    return tmp_path, (f"--run={path}", f"--data-root={tmp_path / 'nowhere'}")


def read_video(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def shows_something(frame: np.ndarray) -> bool:
    """Neither one colour nor nothing but white."""
    return frame.shape == (48, 32, 3) and float(frame.std()) > 3


def test_render_turns_around_it(alone):
    folder, options = alone
    options = (*options, "--turntable", "--num-frames=3")
    result = run_script("experiments/render.py", *options)
    assert result.returncode == 0, result.stderr
    frames = read_video(folder / "renders/turntable.mp4")
    assert len(frames) == 3 and all(map(shows_something, frames))


def test_render_drives_it_by_a_file(alone):
    folder, options = alone
    output = folder / "a.mp4"
    options = (*options, f"--driving={folder}/codes.npz", f"--output={output}")
    result = run_script("experiments/render.py", *options)
    assert result.returncode == 0, result.stderr
    assert "warning" not in result.stderr
    frames = read_video(output)
    assert len(frames) == 2 and all(map(shows_something, frames))


def test_reenact_drives_it_by_a_file(alone):
    folder, options = alone
    options = (*options, f"--driving={folder}/codes.npz")
    result = run_script("experiments/reenact.py", *options)
    assert result.returncode == 0, result.stderr
    frames = read_video(folder / "renders/reenact_codes.mp4")
    assert len(frames) == 2 and all(map(shows_something, frames))
    assert (folder / "renders/reenact_codes.png").is_file()


@pytest.mark.parametrize("how", ["at rest", "by a file"])
def test_export_writes_it(alone, tiny_run, how):
    folder, options = alone
    options = (*options, f"--output={folder}/a.ply")
    if how == "by a file":
        options = (*options, f"--driving={folder}/codes.npz", "--frame=1")
    result = run_script("experiments/export_ply.py", *options)
    assert result.returncode == 0, result.stderr
    count = int(np.sum(tiny_run.alive))
    assert f"{count:,} Gaussians at" in result.stdout
    assert f"element vertex {count}\n".encode() in (folder / "a.ply").read_bytes()


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("render", ["--sequence=FREE", "--output={}/a.mp4"]),
        ("render", ["--turntable", "--sequence=FREE"]),
        ("render", ["--driving={}/codes.npz", "--camera=222200037"]),
        ("reenact", ["--driving={}/codes.npz", "--pose=target"]),
        ("reenact", ["--driver-subject=074"]),
        ("export_ply", ["--sequence=FREE", "--output={}/a.ply"]),
    ],
)
def test_what_needs_the_capture_says_that_it_is_missing(alone, script, options):
    folder, given = alone
    before = sorted(folder.rglob("*"))
    options = [option.format(folder) for option in options]
    result = run_script(f"experiments/{script}.py", *given, *options)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "subject '074'" in result.stderr and f"{folder}/nowhere" in result.stderr
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("script", "options", "said"),
    [
        ("render", ["--turntable", "--camera=1"], "--camera 1 has no effect"),
        ("render", ["--turntable", "--pose=still"], "--pose still has no effect"),
        ("render", ["--turntable", "--frame=3"], "--frame 3 has no effect"),
        ("render", ["--driving=a.npz", "--frame=3"], "--frame 3 has no effect"),
        ("render", ["--driving=a.npz", "--turns=2"], "--turns 2.0 has no effect"),
        ("render", ["--sequence=FREE", "--pose=file"], "--pose file has no effect"),
        ("render", ["--sequence=FREE", "--num-frames=3"], "--num-frames 3 has no"),
        ("export_ply", ["--frame=3"], "--frame 3 has no effect"),
        ("reenact", ["--driving=a.npz", "--sequence=EXP"], "--sequence EXP has no"),
        ("reenact", ["--driving=a.npz", "--cache-dir=a"], "--cache-dir a has no"),
    ],
)
def test_options_without_effect_are_refused(script, options, said):
    """Before anything is opened: there need not even be an avatar."""
    result = run_script(f"experiments/{script}.py", "--run=nowhere", *options)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and said in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "message"),
    [("--width=40000", "--width is 40000; give 16"), ("--turns=inf", "--turns is inf")],
)
def test_turntable_that_cannot_be_is_refused(alone, option, message):
    _, options = alone
    result = run_script("experiments/render.py", *options, "--turntable", option)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and message in result.stderr
