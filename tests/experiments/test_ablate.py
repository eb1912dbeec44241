"""`experiments/ablate.py` on a tiny capture: a table of two variants, made once."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import tyro
from PIL import Image

from npga_jax.app import cli
from npga_jax.avatar.model import deform_gaussians
from npga_jax.core.settings import check_effects
from npga_jax.training.building import default_method
from npga_jax.training.settings import PRESETS, TrainConfig, validate
from tests import small_scene

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SMALL = (
    "--capture.width=32",
    "--gaussians.capacity=64",
    "--gaussians.feature-dim=4",
    "--detail.hidden=8",
    "--detail.layers=2",
    "--density.events=1",
    "--density.views=1",
    "--preview-every=1000",
)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.setattr("npga_jax.core.runtime.configure", lambda **_: None)
    import ablate

    return ablate


def run(script, capture, output, *options):
    argv = [
        *(f"--subject={capture.subject}", f"--data-root={capture.root}"),
        *(f"--output={output}", "--driving=blendshapes", "--seeds=1", "--steps=4"),
        *(f"--options={' '.join(SMALL)}", "--rows", "static", "no features"),
        *options,
    ]
    cli.run(script.main, script.AblateConfig, argv=argv)


def test_variants_are_trained_measured_and_not_trained_again(
    script, tiny_capture, tmp_path, monkeypatch
):
    run(script, tiny_capture, tmp_path)
    report = json.loads((tmp_path / "ablation.json").read_text())
    assert list(report["rows"]) == ["static", "no features"]
    for row in report["rows"].values():
        (result,) = row["runs"]
        psnr = result["self_reenactment"]["full"]["psnr"]
        assert np.isfinite(psnr) and psnr > 3
    settings = json.loads((tmp_path / "static/seed_0/config.json").read_text())
    assert settings["forward"]["source"] == "none"
    table = (tmp_path / "table.md").read_text().splitlines()
    assert len(table) == 4 and table[2].startswith("| static |")
    with Image.open(tmp_path / "frames.png") as sheet:
        assert sheet.width == 3 * 32  # The truth, and two variants.

    def refuse(*_, **__):
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr("npga_jax.train", refuse)
    run(script, tiny_capture, tmp_path)


def test_without_a_held_out_sequence_novel_views_are_compared(
    script, tiny_capture, tmp_path, capsys
):
    nothing = "--capture.held-out-sequence ''"
    run(script, tiny_capture, tmp_path, f"--options={' '.join(SMALL)} {nothing}")
    header, _, *rows = (tmp_path / "table.md").read_text().splitlines()
    columns = [cell.strip() for cell in header.split("|")]
    for row in rows:
        cells = dict(
            zip(columns, (cell.strip() for cell in row.split("|")), strict=True)
        )
        assert cells["face dB"] == cells["face LPIPS"] == "-"
        assert float(cells["novel view, face dB"]) > 3
    assert len(rows) == 2 and "nan" not in capsys.readouterr().out
    with Image.open(tmp_path / "frames.png") as sheet:
        assert sheet.width == 3 * 32


def test_one_table_has_one_budget(script, tiny_capture, tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "run_one", interrupted)

    def end(*options):
        with pytest.raises(SystemExit) as stop:
            run(script, tiny_capture, tmp_path, *options)
        return stop.value.code, capsys.readouterr().err

    assert end()[0] == 130
    # More variants and seeds are added; what is measured stays the same.
    assert end("--rows", "full", "--seeds=2")[0] == 130
    for option, said in (
        ("--steps=5", "steps was 4, is now 5"),
        ("--frame-step=3", "frame_step was 2, is now 3"),
        ("--options=", "options was --capture.width=32"),
    ):
        code, error = end(option)
        assert code == 2 and said in error and "another --output" in error
    (tmp_path / "ablation.json").write_text("{}")
    assert "cannot be understood" in end()[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rows", "nonsense"], "there is no variant 'nonsense'"),
        (["--seeds=0"], "must be 1 or more"),
    ],
)
def test_mistakes_are_named(script, tiny_capture, tmp_path, capsys, options, said):
    with pytest.raises(SystemExit) as stop:
        run(script, tiny_capture, tmp_path / "new", *options)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_every_variant_is_understood_and_changes_something(script):
    full = PRESETS["quick"]
    for name, row in script.ROWS.items():
        variant = tyro.cli(TrainConfig, args=list(row.options), default=full)
        validate(variant)
        check_effects(variant, full)
        is_same = variant == full
        if row.method is not None:
            usual = default_method(variant)
            is_same = is_same and changed_parts(row.method(usual), usual) == set()
        assert is_same == (name == "full"), name


def changed_parts(method, other) -> set[str]:
    fields = (field.name for field in dataclasses.fields(method))
    return {f for f in fields if getattr(method, f) is not getattr(other, f)}


def test_variants_change_the_parts_that_they_name(script):
    usual = default_method(PRESETS["quick"])
    changed = {
        name: changed_parts(row.method(usual), usual)
        for name, row in script.ROWS.items()
        if row.method is not None
    }
    assert changed == {
        "vanilla: G alone": {"density"},
        "F alone": {"detail"},
        "static": {"forward", "detail"},
        "no density control": {"density"},
    }
    assert script.without_density(usual).density.events == ()


def test_a_static_avatar_does_not_move(script):
    still = script.static(small_scene.METHOD)
    params, alive = small_scene.make_params()
    # What G would do, if it were asked.
    params = params._replace(detail=jax.tree.map(lambda x: x + 0.1, params.detail))
    for method, moves in ((still, False), (small_scene.METHOD, True)):
        clouds = [
            deform_gaussians(method, params, alive, np.full(3, code))[0]
            for code in (0.0, 1.0)
        ]
        pairs = zip(jax.tree.leaves(clouds[0]), jax.tree.leaves(clouds[1]), strict=True)
        assert any(np.any(a != b) for a, b in pairs) == moves
