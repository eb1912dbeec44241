"""`import npga_jax`: what README shows, there when it is asked for and not before."""

import subprocess
import sys
import tomllib
from pathlib import Path
from unittest import mock

import npga_jax
from tests.scripts import run_script

SHOWN = [
    "load",
    "open_capture",
    "train",
    "track",
    "distill",
    "Method",
    "rasterization",
    "load_prior",
    "default_method",
    "LossTerm",
    "Network",
    "Forward",
    "DensityControl",
    "TrainConfig",
]


def test_everything_that_is_shown_is_there():
    for name in SHOWN:
        assert callable(getattr(npga_jax, name)), name
    assert set(SHOWN) <= set(dir(npga_jax))


def test_import_brings_nothing_heavy():
    heavy = [
        "jax",
        "numpy",
        "scipy",
        "numba",
        "flax",
        "optax",
        "orbax",
        "av",
        "imageio",
        "skimage",
        "tyro",
    ]
    code = (
        "import sys, npga_jax\n"
        f"loaded = [name for name in {heavy} if name in sys.modules]\n"
        "sys.exit(', '.join(loaded) or None)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_a_capture_and_a_head_model_open_with_nothing_said():
    capture = npga_jax.open_capture(
        cfg=npga_jax.CaptureConfig(width=32, driving="blendshapes")
    )
    assert capture.subject == "demo" and capture.width == 32
    prior = npga_jax.load_prior()
    assert prior.exp_std.shape == (prior.model.cfg.lat_dim_exp,)


def test_tracking_goes_on_where_tracked_codes_are(monkeypatch, damaged):
    """The script and the library, as training does: one identity, one folder."""
    tracked = mock.Mock(return_value=None)
    monkeypatch.setattr("npga_jax.app.library.track_subject", tracked)
    monkeypatch.setattr("npga_jax.tracking.track_subject", tracked)
    sequences = damaged / "074/sequences"
    codes = sequences / "FREE/tracking/blendshapes.npz"
    codes.rename(codes.with_name("nphm.npz"))
    npga_jax.track("074", damaged)
    options = ("--subject=074", f"--data-root={damaged}")
    assert run_script("experiments/track.py", *options).returncode == 0
    assert [c.kwargs["output"] for c in tracked.call_args_list] == [sequences] * 2


def test_every_file_of_arrays_goes_into_the_wheel():
    root = Path(__file__).parents[1]
    declared = tomllib.loads((root / "pyproject.toml").read_text())
    declared = declared["tool"]["setuptools"]["package-data"]
    shipped = {
        path
        for package, patterns in declared.items()
        for pattern in patterns
        for path in (root / package.replace(".", "/")).glob(pattern)
    }
    files = set((root / "npga_jax").rglob("*.npz"))
    assert {f.name for f in files} > {"default.npz", "landmarks.npz", "template.npz"}
    assert files <= shipped
