"""The scripts on a run that was trained on all sequences: none is held out."""

import dataclasses

import numpy as np
import pytest

import npga_jax
from tests.scripts import run_script
from tests.synthetic_capture import write_driving


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    cfg = tiny_run.config
    capture = dataclasses.replace(cfg.capture, held_out_sequence="")
    folder = tmp_path_factory.mktemp("whole") / "run"
    return npga_jax.train(
        dataclasses.replace(cfg, output=folder, capture=capture, steps=2, test_every=2)
    )


@pytest.fixture(scope="module")
def codes(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("codes") / "codes.npz"
    size = (2, len(run.capture.expr_names))
    write_driving(path, expr=np.ones(size), world_from_head=[np.eye(4)] * 2)
    return path


def test_it_is_evaluated_by_novel_views(run, tmp_path):
    options = (f"--run={run.folder}", f"--output={tmp_path}", "--lpips-vgg-images=0")
    result = run_script("experiments/evaluate.py", *options)
    assert result.returncode == 0, result.stderr
    assert "| novel view " in result.stdout
    names = {path.name for path in (tmp_path / "evaluation").glob("*.mp4")}
    assert names == {"novel_view_222200037.mp4"}


@pytest.mark.parametrize(
    ("script", "options", "said"),
    [
        ("evaluate", ("--driving={codes}",), "drives the sequence that is held out"),
        ("reenact", ("--driving={codes}", "--pose=target"), "give another --pose"),
    ],
)
def test_what_needs_a_held_out_sequence_says_so(run, codes, script, options, said):
    options = [option.format(codes=codes) for option in options]
    result = run_script(f"experiments/{script}.py", f"--run={run.folder}", *options)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert said in result.stderr


@pytest.mark.parametrize("name", ["self_reenactment_full", "novel_view_full"])
def test_its_curve_has_novel_views_only(run, tmp_path, name):
    options = (f"--runs={run.folder}", f"--figure={name}", f"--output={tmp_path}")
    result = run_script("experiments/curves.py", *options)
    if name.startswith("novel"):
        assert result.returncode == 0, result.stderr
        return
    assert result.returncode == 2
    assert "has no figure self_reenactment_full, but novel_view_face" in result.stderr


def test_it_is_rendered_from_any_sequence(run, tmp_path):
    options = ("--sequence=FREE", f"--output={tmp_path / 'a.mp4'}")
    result = run_script("experiments/render.py", f"--run={run.folder}", *options)
    assert result.returncode == 0, result.stderr
