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


def write_codebook(path: Path, **change: np.ndarray) -> None:
    """A small golden whose values NumPy has computed."""
    before = np.random.default_rng(0).normal(0, 0.6, (5, 4)).astype(np.float32)
    rows = np.array([[3], [1], [3]])
    norms = np.linalg.norm(before, axis=-1, keepdims=True)
    short = np.where(norms > 1, before / norms, before)
    after = before.copy()
    after[[1, 3]] = short[[1, 3]]
    arrays = {
        "idx": rows,
        "before/geo": before,
        "lookup/geo": short[rows],
        "after/geo": after,
    }
    np.savez(path, **(arrays | change))


def test_agreement_is_said_and_nothing_is_left_out(script, tmp_path, capsys):
    write_codebook(tmp_path / "mono_a_codebook.npz", novel=np.zeros(2))
    np.savez(tmp_path / "tracking_a.npz", proj_X=np.zeros(3), sh=np.zeros(2))
    (tmp_path / "something.txt").write_text("else")
    np.savez(tmp_path / "mono_b_weights.npz", a=np.zeros(1))
    run(script, tmp_path)
    text = capsys.readouterr().out
    assert "PASS: 1 groups" in text
    assert "not checked: novel" in text
    assert "photometric tracking" in text and "proj_X, sh" in text
    assert "something.txt\n  not checked: its name" in text
    assert (
        "mono_b_weights.npz\n  not checked: the file that it belongs to is ab" in text
    )


@pytest.mark.parametrize("bad", [1e-4, np.nan])
def test_what_is_above_tolerance_fails_with_exit_code_1(script, tmp_path, capsys, bad):
    path = tmp_path / "mono_a_codebook.npz"
    write_codebook(path)
    with np.load(path) as archive:
        after = archive["after/geo"]
    after[2, 1] += bad
    write_codebook(path, **{"after/geo": after})
    with pytest.raises(SystemExit) as stop:
        run(script, tmp_path)
    assert stop.value.code == 1
    text = capsys.readouterr().out
    assert "FAIL  codebook look-up" in text and "after/geo" in text
    assert "FAIL: above tolerance in mono_a_codebook.npz" in text


def test_another_shape_fails(script, tmp_path):
    write_codebook(tmp_path / "mono_a_codebook.npz", **{"after/geo": np.zeros((1, 1))})
    with pytest.raises(SystemExit) as stop:
        run(script, tmp_path)
    assert stop.value.code == 1


def test_files_that_are_no_goldens_are_named(script, tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        run(script, tmp_path / "absent")
    with pytest.raises(InputError, match="holds no goldens"):
        run(script, tmp_path)
    np.savez(
        tmp_path / "mono_a_codebook.npz", idx=np.zeros(1, int), **{"before/x": [1.0]}
    )
    with pytest.raises(InputError, match=r"codebook\.npz has no entry 'lookup/x'"):
        run(script, tmp_path)
    (tmp_path / "mono_a_codebook.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(InputError, match="copy it anew"):
        run(script, tmp_path)
    (tmp_path / "mono_a_codebook.npz").unlink()
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
def test_the_global_variant_and_a_checkpoint_pass(script, tmp_path, capsys):
    names = [
        "mono_global_reduced_seed11.npz",
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
    for name in (names[0], names[1], names[3]):
        tally = script.check_file(tmp_path / name)
        assert tally.passed, "\n".join(tally.text())
        assert tally.lines
    # A seed of other weights: the comparison is not one of a file with itself.
    np.savez(stem, anchors_mean=few["anchors_mean"], seed=12)
    assert not script.check_file(tmp_path / names[1]).passed


@needs_goldens
@pytest.mark.slow
def test_all_reference_values_pass(script, capsys):
    run(script, GOLDENS)
    text = capsys.readouterr().out
    assert "\nPASS: " in text and "FAIL" not in text
    for line in text.splitlines():
        if "not checked" in line:
            assert (
                "read along" in line
                or "equal after" in line
                or "all of it" in line
                or ("optimizers" in line)
            ), line
