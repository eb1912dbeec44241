import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.core.metrics_log import METRICS_FILE, MetricsLog
from npga_jax.data.settings import CaptureConfig
from npga_jax.training.run_folder import (
    CONFIG_FILE,
    ENV_FILE,
    changed_settings,
    environment,
    read_config,
    read_environment,
    settings_to_json,
    write_config,
    write_environment,
)
from npga_jax.training.settings import (
    PRESETS,
    TrainConfig,
    check_choices,
    preset_from_argv,
    validate,
)

UNUSUAL = TrainConfig(
    subject="074",
    data_root=Path("some where/data"),
    output=Path("../out"),
    resume=True,
    capture=CaptureConfig(
        ignore_cameras=("222200037", "1"), cache_dir=Path("/caché"), width=33
    ),
)


@pytest.mark.parametrize("cfg", [*PRESETS.values(), UNUSUAL])
def test_settings_come_back_as_they_were(tmp_path, cfg):
    write_config(tmp_path, cfg)
    assert read_config(tmp_path) == cfg
    assert [p.name for p in tmp_path.iterdir()] == [CONFIG_FILE]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_know_their_name(name):
    validate(PRESETS[name])
    assert PRESETS[name].preset == name


def test_settings_without_arguments_are_the_preset_that_they_name():
    """Whoever trains from Python trains what the command line trains."""
    assert TrainConfig() == PRESETS["quick"]
    assert preset_from_argv(["--subject", "074"]) == TrainConfig()
    assert all(p.capture.driving == "nphm" for p in PRESETS.values())


def test_preset_that_there_is_not_is_named():
    wrong = dataclasses.replace(TrainConfig(), preset="papr")
    with pytest.raises(InputError, match=r"--preset papr: .* demo, quick, long, paper"):
        validate(wrong)


@pytest.mark.parametrize("name", PRESETS)
def test_only_what_was_chosen_can_be_without_effect(name):
    check_choices(PRESETS[name])
    by_hand = TrainConfig(preset=name)
    check_choices(by_hand)
    screen = dataclasses.replace(by_hand.screen, width=16)
    with pytest.raises(InputError, match=r"--screen\.width 16 has no effect"):
        check_choices(dataclasses.replace(by_hand, screen=screen))


@pytest.mark.parametrize(
    ("group", "changes", "part"),
    [
        ("optim", {"coarse": 1e-3}, "forward"),
        ("screen", {"width": 16}, "screen"),
        ("loss", {"lpips_crop": 64}, "terms"),
    ],
)
def test_what_an_own_part_does_with_settings_only_its_author_knows(
    group, changes, part
):
    usual = TrainConfig()
    inner = dataclasses.replace(getattr(usual, group), **changes)
    cfg = dataclasses.replace(usual, **{group: inner})
    with pytest.raises(InputError, match="has no effect"):
        check_choices(cfg, ("rasterize_fn", "density"))
    check_choices(cfg, ("rasterize_fn", part))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"stepz": 3}', '{"capture": {"w": 1}}', '{"capture": 3}']
)
def test_settings_that_make_no_sense_are_an_error(tmp_path, text):
    (tmp_path / CONFIG_FILE).write_text(text)
    with pytest.raises(InputError, match="cannot be understood"):
        read_config(tmp_path)


def test_numbers_of_numpy_come_back_and_text_for_a_number_does_not(tmp_path):
    given: dict[str, Any] = {"steps": np.int64(12), "balance": np.float32(0.5)}
    write_config(tmp_path, TrainConfig(**given))
    assert read_config(tmp_path) == TrainConfig(steps=12, balance=0.5)
    settings = settings_to_json(TrainConfig()) | {"steps": "8000"}
    (tmp_path / CONFIG_FILE).write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"'steps' is '8000'; expected int"):
        read_config(tmp_path)


@pytest.mark.parametrize("name", ["steps", "forward.detail_reach", "test_every"])
def test_settings_are_not_filled_up_with_the_defaults_of_today(tmp_path, name):
    """What a version did not know yet, it did otherwise: `versions` says how."""
    settings = settings_to_json(TrainConfig())
    *groups, field = name.split(".")
    inner = settings
    for group in groups:
        inner = inner[group]
    del inner[field]
    (tmp_path / CONFIG_FILE).write_text(json.dumps(settings))
    with pytest.raises(InputError, match=f"no '{name}' in it.*trained again"):
        read_config(tmp_path)


def test_folder_without_settings_is_no_run(tmp_path):
    with pytest.raises(InputError, match="is not a run"):
        read_config(tmp_path / "nothing here")


def test_changed_settings_are_named():
    cfg = TrainConfig()
    other = dataclasses.replace(
        cfg,
        steps=cfg.steps + 1,
        detail=dataclasses.replace(cfg.detail, hidden=7),
        capture=dataclasses.replace(cfg.capture, ignore_cameras=("1",)),
    )
    assert changed_settings(cfg, cfg) == []
    assert changed_settings(cfg, other) == [
        f"steps was {cfg.steps}, is now {cfg.steps + 1}",
        "capture.ignore_cameras was (), is now ('1',)",
        f"detail.hidden was {cfg.detail.hidden}, is now 7",
    ]


def test_settings_without_effect_on_the_result_may_change():
    cfg = TrainConfig()
    other = dataclasses.replace(
        cfg,
        resume=True,
        output=Path("out"),
        data_root=Path("data"),
        save_every=1,
        log_every=1,
        preview_every=1,
        evaluate=False,
        max_isects=100,
        capture=dataclasses.replace(cfg.capture, cache_dir=Path("cache")),
    )
    assert changed_settings(cfg, other) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "--steps 0: expected a whole number that is at least 1"),
        ({"views_per_step": -1}, "--views-per-step -1"),
        ({"save_every": 0}, "--save-every 0"),
        ({"seed": -1}, "--seed -1"),
        ({"seed": 2**40}, "at most 4294967295"),
        ({"gaussians.sh_degree": 4}, "--gaussians.sh-degree 4.*at most 3"),
        ({"gaussians.capacity": 0}, "--gaussians.capacity 0"),
        ({"detail.layers": 0}, "--detail.layers 0"),
        ({"optim.means": float("nan")}, "--optim.means nan: expected a finite number"),
        ({"optim.sh": float("inf")}, "--optim.sh inf"),
        ({"optim.final_fraction": 0.0}, r"more than 0 and at most 1\."),
        ({"loss.ssim": -0.1}, "--loss.ssim -0.1"),
        ({"halvings": (5.0,) * 12}, r"--halvings 5\.0: .* at most 1\."),
        ({"halvings": (float("nan"),)}, "--halvings nan"),
        ({"halvings": (0.5, -1)}, "--halvings -1: .* more than 0"),
        ({"halvings": (0.5, 0.2)}, r"--halvings 0\.5 0\.2: expected ascending"),
        ({"halvings": (0.5, 1.0)}, "--halvings 0.5 1.0: .* never have their full size"),
        ({"average_from": 1.5}, r"--average-from 1.5.*at most 1\."),
    ],
)
def test_numbers_that_cannot_be_are_refused(changes, message):
    cfg = TrainConfig()
    for name, value in changes.items():
        if "." in name:
            group, name = name.split(".")
            value = dataclasses.replace(getattr(cfg, group), **{name: value})
            name = group
        cfg = dataclasses.replace(cfg, **{name: value})
    with pytest.raises(InputError, match=message):
        validate(cfg)


def test_environment_says_what_numbers_depend_on(tmp_path):
    renderer = {"path": "native", "reason": "numba is there"}
    write_environment(tmp_path, environment(["cpu:0"], renderer))
    assert [p.name for p in tmp_path.iterdir()] == [ENV_FILE]
    env = read_environment(tmp_path)
    assert env["devices"] == ["cpu:0"] and env["renderer"] == renderer
    assert read_environment(tmp_path / "none") == {}
    assert env["versions"]["jax"] and env["python"]


def read_steps(folder):
    lines = (folder / METRICS_FILE).read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_resumed_log_takes_back_what_comes_again(tmp_path):
    log = MetricsLog(tmp_path, from_step=0)
    for step in (1, 5, 10, 15, 20):
        log.write(step=step, loss=0.5)
    log.close()
    log = MetricsLog(tmp_path, from_step=10)
    assert read_steps(tmp_path) == [1, 5, 10]
    log.write(step=11)
    log.close()
    assert read_steps(tmp_path) == [1, 5, 10, 11]


@pytest.mark.parametrize(
    "tail", [b'{"step": 6, "lo', b"\0\0\0", b'{"a": 1}\n', b"\xff"]
)
def test_log_survives_a_last_line_that_is_half_written(tmp_path, tail):
    log = MetricsLog(tmp_path, from_step=0)
    log.write(step=5)
    log.close()
    path = tmp_path / METRICS_FILE
    path.write_bytes(path.read_bytes() + tail)
    log = MetricsLog(tmp_path, from_step=8)
    log.write(step=9)
    log.close()
    assert read_steps(tmp_path) == [5, 9]


def test_new_run_starts_an_empty_log(tmp_path):
    (tmp_path / METRICS_FILE).write_text('{"step": 1}\n')
    MetricsLog(tmp_path, from_step=0).close()
    assert read_steps(tmp_path) == []


def test_lines_are_on_disk_at_once(tmp_path):
    log = MetricsLog(tmp_path, from_step=0)
    log.write(step=1)
    assert read_steps(tmp_path) == [1]
    log.close()
