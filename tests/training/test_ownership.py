"""A run of somebody's own method: its folder knows, and nothing else takes its place."""

import dataclasses
import json
import shutil

import pytest

import npga_jax
from npga_jax.avatar.detail import no_detail
from npga_jax.core.errors import InputError
from npga_jax.training.building import default_method
from npga_jax.training.method_file import METHOD_FILE
from npga_jax.training.ownership import own_parts
from npga_jax.training.run_folder import CONFIG_FILE, read_own_parts
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
    with pytest.raises(InputError, match=r"its own detail, terms, from Python.*method="):
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


def test_usual_method_from_python_is_not_asked_for(tiny_run):
    assert read_own_parts(tiny_run.folder) == ()
    load_run(tiny_run.folder)
    load_run(tiny_run.folder, method=default_method(tiny_run.config))
    with pytest.raises(InputError, match="with its own nothing.* has its own detail"):
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
