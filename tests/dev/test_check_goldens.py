"""The command that compares with the official code: its verdicts and its mistakes."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from tests.nphm_case import GOLDENS, ROOT, needs_goldens

SCRIPT = ROOT / "dev" / "check_goldens.py"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "dev")
    monkeypatch.setattr("npga_jax.core.runtime.configure", lambda: None)
    import check_goldens

    return check_goldens


def run(script, folder: Path) -> None:
    script.main(script.CheckGoldensConfig(dir=folder))


@pytest.fixture
def ones(script, monkeypatch):
    """Goldens of a single quantity, which must be ones."""
    import golden_checks

    def check(golden, tally) -> None:
        tally.close("ones", "ones", np.ones(4), golden["ones"], 5e-6)

    monkeypatch.setattr(golden_checks, "check_mono", check)


@pytest.mark.usefixtures("ones")
def test_agreement_is_said_and_nothing_is_left_out(script, tmp_path, capsys):
    np.savez(tmp_path / "mono_a.npz", ones=np.ones(4), novel=np.zeros(2))
    for name in ("tracking_a", "nphm_a", "mono_global_a"):
        np.savez(tmp_path / f"{name}.npz", a=np.zeros(3))
    (tmp_path / "something.txt").write_text("else")
    np.savez(tmp_path / "mono_b_weights.npz", a=np.zeros(1))
    run(script, tmp_path)
    text = capsys.readouterr().out
    assert "PASS: 1 groups" in text
    assert "not checked: novel" in text
    for name in ("photometric tracking", "NPHM of 2023", "one network"):
        assert "not checked: all of it: " in text and name in text
    assert "something.txt\n  not checked: its name" in text
    assert (
        "mono_b_weights.npz\n  not checked: the file that it belongs to is ab" in text
    )


@pytest.mark.usefixtures("ones")
@pytest.mark.parametrize("bad", [1e-4, np.nan])
def test_what_is_above_tolerance_fails_with_exit_code_1(script, tmp_path, capsys, bad):
    np.savez(tmp_path / "mono_a.npz", ones=[1, 1, 1 + bad, 1])
    with pytest.raises(SystemExit) as stop:
        run(script, tmp_path)
    assert stop.value.code == 1
    text = capsys.readouterr().out
    assert "FAIL  ones" in text and "worst of 1: ones" in text
    assert "FAIL: above tolerance in mono_a.npz" in text


@pytest.mark.usefixtures("ones")
def test_another_shape_fails(script, tmp_path):
    np.savez(tmp_path / "mono_a.npz", ones=np.ones((4, 1)))
    with pytest.raises(SystemExit) as stop:
        run(script, tmp_path)
    assert stop.value.code == 1


def test_files_that_are_no_goldens_are_named(script, tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        run(script, tmp_path / "absent")
    with pytest.raises(InputError, match="holds no goldens"):
        run(script, tmp_path)
    np.savez(tmp_path / "mono_a.npz", seed=1)
    with pytest.raises(InputError, match=r"mono_a\.npz has no entry 'config_json'"):
        run(script, tmp_path)
    (tmp_path / "mono_a.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(InputError, match="copy it anew"):
        run(script, tmp_path)
    for config, reason in (
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        ('{"decoder": {}}', "has no entry"),
    ):
        np.savez(tmp_path / "mono_a.npz", config_json=config, seed=1)
        with pytest.raises(InputError, match=reason):
            run(script, tmp_path)


def test_an_absent_folder_is_one_sentence_and_exit_code_2(tmp_path):
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "--dir", str(tmp_path / "absent")],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: there is no folder")
    assert len(result.stderr.splitlines()) == 1


@needs_goldens
def test_a_checkpoint_passes(script, tmp_path):
    names = [
        "mono_reduced65_seed11_checkpoint_epoch_2500.tar",
        "mono_reduced65_seed11_configs.yaml",
        "mono_reduced65_seed11_codebook.npz",
    ]
    for name in names:
        shutil.copy(GOLDENS / name, tmp_path / name)
    # Of the golden beside the checkpoint, only what the checkpoint needs.
    with np.load(GOLDENS / "mono_reduced65_seed11.npz") as golden:
        few = {key: golden[key] for key in ("anchors_mean", "seed")}
    stem = tmp_path / "mono_reduced65_seed11.npz"
    np.savez(stem, **few)
    tally = script.check_file(tmp_path / names[0])
    assert tally.passed, "\n".join(tally.text())
    assert tally.lines
    # A seed of other weights: the comparison is not one of a file with itself.
    np.savez(stem, anchors_mean=few["anchors_mean"], seed=12)
    assert not script.check_file(tmp_path / names[0]).passed


@needs_goldens
@pytest.mark.slow
def test_all_reference_values_pass(script, capsys):
    run(script, GOLDENS)
    text = capsys.readouterr().out
    assert "\nPASS: " in text and "FAIL" not in text
    for line in text.splitlines():
        if "not checked" in line:
            assert (
                "read along" in line or "all of it" in line or "optimizers" in line
            ), line
