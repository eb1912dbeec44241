"""A run of an own method: its folder knows, and nothing else takes its place."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import npga_jax
from npga_jax.app.opened import open_avatar
from npga_jax.avatar.detail import no_detail
from npga_jax.avatar.forward import no_motion
from npga_jax.avatar.method import code_space_template
from npga_jax.core.errors import InputError
from npga_jax.data.settings import CaptureConfig
from npga_jax.training.artefact import AVATAR_FILE
from npga_jax.training.building import default_method
from npga_jax.training.method_file import METHOD_FILE
from npga_jax.training.ownership import own_parts, parts_to_render
from npga_jax.training.run_folder import (
    CONFIG_FILE,
    read_own_parts,
    settings_from_json,
    settings_to_json,
)
from npga_jax.training.runs import load_run
from npga_jax.training.settings import TrainConfig

OWN = """
from npga_jax import default_method
from npga_jax.avatar import no_detail

def method(cfg):
    full = default_method(cfg)
    detail = full.detail.replace(apply=no_detail)
    return full.replace(detail=detail).without_term("ssim")
"""


def own_method(cfg):
    full = default_method(cfg)
    detail = full.detail.replace(apply=no_detail)
    return full.replace(detail=detail).without_term("ssim")


@pytest.fixture(scope="module")
def cfg(tiny_run, tmp_path_factory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("own") / "run"
    return dataclasses.replace(tiny_run.config, output=folder, steps=2)


@pytest.fixture(scope="module")
def run(cfg):
    """Trained with a method from Python; do not change its folder."""
    return npga_jax.train(cfg, own_method)


def test_only_what_differs_is_own():
    cfg = TrainConfig()
    usual = default_method(cfg)
    assert own_parts(cfg, default_method(cfg)) == ()
    assert own_parts(cfg, own_method(cfg)) == ("detail", "terms")
    assert own_parts(cfg, usual.replace(code_noise=0.5)) == ("code_noise",)
    density = usual.density.replace(events=(0.5,))
    assert own_parts(cfg, usual.replace(density=density)) == ("density",)


def test_method_from_python_is_asked_for_again(run):
    assert read_own_parts(run.folder) == ("detail", "terms")
    with pytest.raises(
        InputError, match=r"its own detail, terms, from Python.*method="
    ):
        load_run(run.folder)
    with pytest.raises(InputError, match=r"own detail, terms.*has its own detail\."):
        only = own_method(run.config).replace(terms=default_method(run.config).terms)
        load_run(run.folder, method=only)
    opened = load_run(run.folder, method=own_method(run.config))
    assert opened.method.detail.apply is no_detail
    resumed = dataclasses.replace(run.config, resume=True, output=run.folder)
    with pytest.raises(InputError, match="its own detail, terms"):
        npga_jax.train(resumed)
    assert npga_jax.train(resumed, own_method).step == 2


def test_only_what_is_rendered_is_asked_for_by_an_avatar():
    cfg = TrainConfig(halvings=[0.3], capture=CaptureConfig(ignore_cameras=["1"]))
    assert cfg.halvings == (0.3,) and cfg.capture.ignore_cameras == ("1",)
    read = settings_from_json(settings_to_json(cfg))
    codes = code_space_template(("a", "b"))
    usual = default_method(cfg)
    assert usual.forward.fit is not None and parts_to_render(read, usual, codes) == ()
    assert own_parts(read, usual) == ()
    # Where F is kept is no part of it, nor is it looked at, nor what it starts with.
    elsewhere = dataclasses.replace(cfg.capture, cache_dir=Path("elsewhere"))
    assert own_parts(dataclasses.replace(cfg, capture=elsewhere), usual) == ()
    forward = usual.forward
    fitted = usual.replace(forward=forward.replace(fit=lambda *_: {}))
    assert own_parts(read, fitted) == ("forward",)
    assert parts_to_render(read, fitted, codes) == ()

    def started(key, codes, num_features):
        return forward.init(key, codes, num_features)

    def wider(key, codes, num_features):
        return {**forward.init(key, codes, num_features), "more": np.zeros(3)}

    for init, parts in ((started, ()), (wider, ("forward",))):
        own = usual.replace(forward=forward.replace(init=init))
        assert parts_to_render(read, own, codes) == parts
    still = usual.replace(forward=forward.replace(apply=no_motion))
    assert parts_to_render(read, still, codes) == ("forward",)


def test_scripts_find_the_file_in_the_folder(run, tmp_path):
    """By avatar.npz, and by the checkpoint where that is not there."""
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    with pytest.raises(InputError, match="its own detail"):
        open_avatar(folder)
    (folder / METHOD_FILE).write_text(OWN)
    own = tmp_path / "own.py"
    own.write_text(OWN)
    for _ in range(2):
        assert open_avatar(folder).avatar.method.detail.apply is no_detail
        (folder / AVATAR_FILE).unlink(missing_ok=True)
    (folder / METHOD_FILE).unlink()
    with pytest.raises(InputError, match="its own detail, terms"):
        open_avatar(folder)
    assert open_avatar(folder, method=own).avatar.method.detail.apply is no_detail


def test_usual_method_from_python_is_not_asked_for(tiny_run):
    assert read_own_parts(tiny_run.folder) == ()
    load_run(tiny_run.folder)
    load_run(tiny_run.folder, method=default_method(tiny_run.config))
    with pytest.raises(InputError, match=r"with its own nothing.* has its own detail"):
        load_run(tiny_run.folder, method=own_method(tiny_run.config))


def test_file_that_makes_it_will_do(run, tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    assert load_run(run.folder, method=file).method.detail.apply is no_detail


def test_method_is_given_once(cfg, tmp_path):
    twice = dataclasses.replace(cfg, method=tmp_path / "own.py")
    with pytest.raises(InputError, match="given twice"):
        npga_jax.train(twice, own_method)


def test_run_of_before_opens_as_it_did(tiny_run, tmp_path):
    """Its config.json says nothing of own parts."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.folder, folder)
    settings = json.loads((folder / CONFIG_FILE).read_text())
    del settings["own_parts"]
    (folder / CONFIG_FILE).write_text(json.dumps(settings))
    assert read_own_parts(folder) is None
    assert own_parts(load_run(folder).config, load_run(folder).method) == ()
    (folder / METHOD_FILE).write_text(OWN)
    assert load_run(folder).method.detail.apply is no_detail
