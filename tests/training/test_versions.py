"""Runs of earlier versions: their settings and their checkpoints open as they were."""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from npga_jax.avatar.settings import ForwardConfig
from npga_jax.core import checkpoint, settings
from npga_jax.core.checkpoint import CHECKPOINTS
from npga_jax.core.errors import InputError
from npga_jax.core.types import AvatarParams
from npga_jax.training import parallel, runs, versions
from npga_jax.training.building import default_method
from npga_jax.training.optim import group_rates
from npga_jax.training.run_folder import read_config, settings_to_json
from npga_jax.training.settings import TrainConfig, validate
from npga_jax.training.start import state_template
from tests import small_scene

FILE = Path(__file__).with_name("config_version_1.json")
"""As the last commit of version 1 (7576d97) wrote it; some values are not its usual."""


@pytest.fixture
def old() -> dict[str, Any]:
    return json.loads(FILE.read_text())


@pytest.fixture
def read(tmp_path):
    def read(config: dict[str, Any]) -> TrainConfig:
        (tmp_path / "config.json").write_text(json.dumps(config))
        return read_config(tmp_path)

    return read


def names_in(config: dict[str, Any], prefix: str = "") -> set[str]:
    """Options of a config.json, with dots."""
    found = set()
    for name, value in config.items():
        is_group = isinstance(value, dict)
        found |= names_in(value, f"{name}.") if is_group else {prefix + name}
    return found


def test_settings_of_version_1_open_and_what_was_moved_keeps_its_value(old, read):
    cfg = read(old)
    validate(cfg)
    assert cfg.forward.source == "distilled" and cfg.gaussians.init_frames == 5
    assert cfg.capture.cache_dir == Path("a cache")
    assert cfg.method is None and cfg.capture.mattes
    # G learnt at an own pace beside F, and was held by an own weight.
    assert group_rates(cfg.optim, has_forward=True).detail == 7e-4
    (residual,) = (t for t in default_method(cfg).terms if t.name == "residual")
    assert residual.weight == 0.2


def test_without_forward_motion_what_belonged_to_it_counts_for_nothing(old, read):
    old["forward"]["source"] = "none"
    cfg = read(old)
    assert cfg.optim.detail == 1.5e-3 and cfg.loss.residual == 0.01


def test_what_is_no_longer_there_is_named(old, read):
    old["detail"]["symmetric"] = True
    with pytest.raises(InputError, match=r"config\.json: .*--detail\.symmetric"):
        read(old)


def test_later_versions_are_refused(old, read):
    with pytest.raises(InputError, match="settings are of version 99"):
        read({**old, "version": 99})


def test_every_option_is_of_version_1_or_has_its_value_for_earlier_runs(old):
    """A new option without an entry in `ADDED` fails here: old runs would not open."""
    added = set().union(*versions.ADDED.values())
    options = {field.name for field in settings.walk(TrainConfig())}
    assert options - names_in(old) == added & options
    assert added <= options, "an entry for an option that is not there"
    assert max(versions.ADDED) <= versions.VERSION


def test_settings_that_are_written_say_their_version(read):
    written = settings_to_json(TrainConfig())
    assert written["version"] == versions.VERSION
    assert read(written) == TrainConfig()


class Params1(NamedTuple):
    """`AvatarParams` as checkpoints of format 1 have it."""

    gaussians: Any
    detail: Any
    coarse: Any
    screen: Any


CONFIG = dataclasses.replace(
    small_scene.CONFIG,
    forward=ForwardConfig(source="distilled", hidden=8, layers=2, octaves=2),
)


def test_checkpoint_of_format_1_opens(tmp_path, monkeypatch):
    method = default_method(CONFIG)
    names = small_scene.CODES.names
    template = state_template(CONFIG, method, names)
    rng = np.random.default_rng(0)

    def fill(x):
        return rng.normal(size=x.shape).astype(x.dtype)

    state = jax.tree.map(fill, template)._replace(step=np.array(7, np.int32))
    old = jax.tree.map(
        lambda x: (
            Params1(x.gaussians, x.detail, x.forward, x.screen)
            if isinstance(x, AvatarParams)
            else x
        ),
        state,
        is_leaf=lambda x: isinstance(x, AvatarParams),
    )
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT_VERSION", 1)
        checkpoint.save_state(tmp_path / CHECKPOINTS, old, {"seconds": 2.5})
    mesh = parallel.make_mesh(1)
    opened, metadata = runs.load_state(tmp_path, 7, CONFIG, method, names, mesh)
    assert metadata["seconds"] == 2.5
    assert jax.tree.structure(opened) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, opened, state)
    assert opened.params.forward["layers"] and opened.params.detail["layers"]
