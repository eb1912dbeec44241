import hashlib
import zlib
from pathlib import Path

import numpy as np
import pytest

from npga_jax.nphm.mononphm import load_mononphm
from npga_jax.nphm.official import official_from_params
from npga_jax.nphm.storage import load_head_model
from tests.nphm_case import GOLDENS, needs_goldens
from tests.scripts import Result, run_script
from tests.small_head_model import is_same

GOLDEN = "mono_reduced65_seed11"


@pytest.fixture
def golden(tmp_path: Path) -> dict[str, Path]:
    """Arguments that load the golden checkpoint."""
    with np.load(GOLDENS / f"{GOLDEN}.npz") as values:
        np.save(tmp_path / "anchors.npy", values["anchors_mean"].astype(np.float64))
    return {
        "path": GOLDENS / f"{GOLDEN}_checkpoint_epoch_2500.tar",
        "config": GOLDENS / f"{GOLDEN}_configs.yaml",
        "anchors": tmp_path / "anchors.npy",
    }


@needs_goldens
def test_official_checkpoint_holds_the_official_weights(golden):
    official = load_mononphm(**golden)
    assert official.epoch == 2500
    states = official_from_params(official.model.params, official.model.cfg)
    weights = {f"id.{k}": v for k, v in states["id_decoder"].items()}
    weights |= {f"ex.{k}": v for k, v in states["ex_decoder"].items()}
    with np.load(GOLDENS / f"{GOLDEN}_weights.npz") as expected:
        assert set(weights) == set(expected.files)
        for key, value in weights.items():
            np.testing.assert_array_equal(value, expected[key], strict=True)
    digest = hashlib.sha256()
    for key in sorted(weights):
        digest.update(key.encode() + np.ascontiguousarray(weights[key]).tobytes())
    with np.load(GOLDENS / f"{GOLDEN}.npz") as values:
        assert digest.hexdigest() == str(values["weights_sha256"])
        np.testing.assert_array_equal(
            official.model.params["anchors_mean"], values["anchors_mean"]
        )


@needs_goldens
def test_official_weights_follow_the_recipe(golden):
    """The same numbers, made without any file."""
    official = load_mononphm(**golden)
    states = official_from_params(official.model.params, official.model.cfg)
    for key, value in states["ex_decoder"].items():
        key = f"ex.{key}"
        x = np.random.default_rng([11, zlib.crc32(key.encode())])
        x = x.standard_normal(value.shape)
        small = key.startswith("ex.defDeepSDF.lin6.")
        if key.endswith("bias"):
            x *= 0.01 if small else 0.1
        else:
            x *= (0.1 if small else np.sqrt(2)) / np.sqrt(value.shape[-1])
        np.testing.assert_array_equal(value, x.astype(np.float32))


@needs_goldens
def test_official_codebooks_are_those_after_the_look_up(golden):
    codebooks = load_mononphm(**golden).codebooks
    with np.load(GOLDENS / f"{GOLDEN}_codebook.npz") as expected:
        for key in ("geo", "exp", "app"):
            np.testing.assert_array_equal(codebooks[key], expected[f"after/{key}"])


def convert(*arguments: str | Path) -> Result:
    return run_script("experiments/convert_prior.py", *arguments)


@needs_goldens
def test_script_converts_the_official_checkpoint(golden, tmp_path):
    output = tmp_path / "prior.npz"
    result = convert(
        *("--checkpoint", golden["path"], "--config", golden["config"]),
        *("--anchors", golden["anchors"], "--output", output),
    )
    assert result.returncode == 0, result.stderr
    assert "epoch 2500" in result.stdout and "177,344 parameters" in result.stdout
    assert "codebooks are not kept, only" in result.stdout
    assert "geo (5, 272), exp (17, 10), app (5, 272)" in result.stdout
    converted, metadata = load_head_model(output)
    official = load_mononphm(**golden)
    assert is_same(converted, official.model)
    assert metadata["epoch"] == 2500
    for key, table in official.codebooks.items():
        np.testing.assert_array_equal(metadata["code_std"][key], table.std(axis=0))


@needs_goldens
def test_script_says_what_to_do_about_anchors(golden, tmp_path):
    result = convert(
        *("--checkpoint", golden["path"], "--config", golden["config"]),
        *("--output", tmp_path / "x.npz"),
    )
    assert result.returncode == 2
    assert "anchors_65.npy is in the folder assets/ of the MonoNPHM" in result.stderr
    assert "--anchors" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "x.npz").exists()
