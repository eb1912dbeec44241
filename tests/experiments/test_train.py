"""The training command as a user types it; what is stopped is a process of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from npga_jax.core import checkpoint
from npga_jax.core.checkpoint import CHECKPOINTS
from npga_jax.training import parallel
from npga_jax.training.building import default_method
from npga_jax.training.run_folder import read_config
from npga_jax.training.runs import load_state
from tests.scripts import ROOT, run_script

NAMES = ("a", "b", "c")
"""Of the code; a state does not tell them from others."""
SMALL = (
    "--capture.width=32",
    "--capture.driving=blendshapes",
    "--gaussians.capacity=64",
    "--gaussians.feature-dim=4",
    "--detail.hidden=8",
    "--detail.layers=2",
    "--density.events=2",
    "--density.views=2",
    "--save-every=4",
    "--log-every=1",
    "--preview-every=1000",
    "--test-every=20",
    "--no-evaluate",
)


def options_for(capture, output, *options):
    return [
        f"--subject={capture.subject}",
        f"--data-root={capture.root}",
        f"--output={output}",
        *SMALL,
        *options,
    ]


def run(*arguments, cwd=ROOT):
    return run_script("experiments/train.py", *arguments, cwd=cwd)


def run_process(*arguments, **variables):
    """In a process of its own, which decides itself what its devices are."""
    return subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "train.py"), *arguments],
        capture_output=True,
        text=True,
        env=os.environ | variables,
        timeout=300,
    )


def steps_logged(folder: Path) -> list[int]:
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("}")]


def final_state(folder: Path):
    """The arrays of the newest checkpoint, and its step."""
    step = checkpoint.latest_step(folder / CHECKPOINTS)
    cfg = read_config(folder)
    mesh = parallel.make_mesh(1)
    state, _ = load_state(folder, step, cfg, default_method(cfg), NAMES, mesh)
    return step, [np.asarray(x) for x in _leaves(state)]


def _leaves(tree):
    import jax

    return jax.tree.leaves(tree)


def stop_at(arguments, folder: Path, condition, signal_number) -> tuple[int, str]:
    """Starts a run, sends it a signal once the condition holds."""
    script = str(ROOT / "experiments" / "train.py")
    arguments = [sys.executable, script, *arguments]
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline and not condition():
        time.sleep(0.01)
    assert process.poll() is None, process.stderr.read()
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.fixture(scope="module")
def whole_run(tiny_capture, tmp_path_factory):
    """A run of 40 steps that nobody disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    result = run(*options_for(tiny_capture, folder, "--steps=40"))
    assert result.returncode == 0, result.stderr
    return folder


def test_run_writes_what_it_promises(whole_run):
    assert json.loads((whole_run / "config.json").read_text())["steps"] == 40
    assert "jax" in json.loads((whole_run / "env.json").read_text())["versions"]
    assert steps_logged(whole_run) == list(range(1, 41))
    assert final_state(whole_run)[0] == 40
    lines = (whole_run / "curve.jsonl").read_text().splitlines()
    curve = [json.loads(line) for line in lines]
    assert [point["step"] for point in curve] == [20, 40]
    for point in curve:
        assert 0 < point["seconds"] < 1000
        assert 3 < point["novel_view_full"] < 60
        assert 3 < point["self_reenactment_full"] < 60


@pytest.mark.parametrize(
    "signal_number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM]
)
@pytest.mark.usefixtures("own_signals")
def test_run_that_was_stopped_ends_like_one_that_was_not(
    tiny_capture, whole_run, tmp_path, signal_number
):
    folder = tmp_path / "stopped"
    arguments = options_for(tiny_capture, folder, "--steps=40")

    def far_enough():
        return max(steps_logged(folder), default=0) >= 6

    code, errors = stop_at(arguments, folder, far_enough, signal_number)
    assert "Traceback" not in errors
    saved = checkpoint.latest_step(folder / CHECKPOINTS)
    if signal_number == signal.SIGKILL:
        assert code == -signal.SIGKILL
        assert saved >= 4
    else:
        # A machine that is taken away ends a run that is well.
        assert code == (130 if signal_number == signal.SIGINT else 0)
        assert "--resume" in errors
        assert saved == max(steps_logged(folder)) < 40
    # As the message says: the settings are the run's own.
    result = run("--resume", f"--output={folder}")
    assert result.returncode == 0, result.stderr
    assert f"resuming at step {saved}" in result.stdout
    assert steps_logged(folder) == list(range(1, 41))
    step, leaves = final_state(folder)
    expected_step, expected = final_state(whole_run)
    assert step == expected_step
    for actual, wanted in zip(leaves, expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--steps=40"], "already holds a run"),
        (["--steps=41", "--resume"], "steps was 40, is now 41"),
    ],
)
def test_second_run_over_the_first_changes_nothing(
    tiny_capture, whole_run, options, message
):
    before = {p: p.stat().st_mtime_ns for p in whole_run.rglob("*") if p.is_file()}
    result = run(*options_for(tiny_capture, whole_run, *options))
    assert result.returncode == 2
    assert message in result.stderr and "Traceback" not in result.stderr
    after = {p: p.stat().st_mtime_ns for p in whole_run.rglob("*") if p.is_file()}
    assert after == before


def test_unknown_subject_fails_at_once_and_leaves_nothing(tiny_capture, tmp_path):
    folder = tmp_path / "none"
    arguments = options_for(tiny_capture, folder, "--steps=4", "--subject=75")
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert "75" in result.stderr and str(tiny_capture.root) in result.stderr
    assert "Traceback" not in result.stderr
    assert not folder.exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--resume"], "--resume needs --output"),
        (["--resume", "--output=nowhere"], "nowhere is not a run"),
        (["--output=none", "--steps=0"], "--steps 0: expected"),
        (["--output=none", "--views-per-step=3"], "there are 2 training cameras"),
        (["--output=none", "--capture.held-out-camera=1"], "no camera '1'"),
        (["--output=none", "--save-evry=4"], "--save-every"),
        (["--output=none", "--preset=fast"], "--preset"),
    ],
)
def test_mistakes_are_sentences_and_leave_nothing(
    tiny_capture, tmp_path, options, message
):
    data = [f"--data-root={tiny_capture.root}", f"--subject={tiny_capture.subject}"]
    result = run(*data, *SMALL, *options, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr and "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_views_that_the_devices_cannot_share_are_refused(tiny_capture, tmp_path):
    folder = tmp_path / "none"
    result = run_process(*options_for(tiny_capture, folder, "--num-devices=3"))
    assert result.returncode == 2
    assert "cannot be shared among 3 devices" in result.stderr
    assert "Traceback" not in result.stderr
    assert not folder.exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--loss.lpips-crop=64"], "--loss.lpips-crop 64 has no effect"),
        (
            ["--density.peak-weight=0.1", "--density.strategy=none"],
            "--density.peak-weight 0.1 has no effect: it needs --density.strategy to "
            "be adaptive, which is none",
        ),
    ],
)
def test_settings_without_effect_are_refused(tiny_capture, tmp_path, options, message):
    data = [f"--data-root={tiny_capture.root}", f"--subject={tiny_capture.subject}"]
    result = run(*data, "--output=none", *options, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and message in result.stderr
    assert "Leave one of them out" in result.stderr
    assert not list(tmp_path.iterdir())


def test_weight_on_eyes_and_mouth_needs_label_maps(tiny_capture, tmp_path):
    without = shutil.ignore_patterns("segmentation")
    root = tmp_path / "data"
    shutil.copytree(tiny_capture.folder, root / "074", ignore=without)
    folder = tmp_path / "run"
    options = (*SMALL, f"--output={folder}", "--loss.parts=0.8")
    result = run("--subject=074", f"--data-root={root}", *options)
    assert result.returncode == 2
    assert "--loss.parts 0.8 has no effect: no training frame of" in result.stderr
    assert not folder.exists()


def test_devices_that_are_left_idle_are_told_of(tiny_capture, tmp_path):
    """Here the user splits the CPU, and not `--num-devices`."""
    folder = tmp_path / "run"
    flags = os.environ.get("XLA_FLAGS", "")
    flags += " --xla_force_host_platform_device_count=2"
    options = options_for(tiny_capture, folder, "--steps=8")
    result = run_process(*options, XLA_FLAGS=flags)
    assert result.returncode == 0, result.stderr
    (line,) = [x for x in result.stdout.splitlines() if "Gaussians on" in x]
    assert "on 1 of 2 cpu devices (they share --views-per-step 1 evenly" in line
    assert steps_logged(folder) == list(range(1, 9))
    # Another number of devices may go on.
    shutil.rmtree(folder / CHECKPOINTS / "8")
    result = run("--resume", f"--output={folder}", "--num-devices=1")
    assert result.returncode == 0, result.stderr
    assert "resuming at step 4" in result.stdout
    assert "Gaussians on 1 cpu device(s)" in result.stdout
    assert final_state(folder)[0] == 8
