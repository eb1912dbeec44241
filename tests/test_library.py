"""`import npga_jax`: what README shows, there when it is asked for and not before."""

import subprocess
import sys

import npga_jax

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
