"""A small raw capture, and `experiments/prepare.py` as a user types it."""

import numpy as np
from PIL import Image

from npga_jax.data import CaptureConfig, open_located, prepared_folder
from tests.scripts import run_script
from tests.synthetic_capture import BACKGROUND

CAMERAS = ("222200036", "222200037")
SEQUENCES = ("EXP-1-head", "FREE")
WIDTH, HEIGHT = 96, 144
CACHE = "cache"


def write_plate(path, width=WIDTH, height=HEIGHT):
    color = np.broadcast_to(np.uint8(BACKGROUND), (height, width, 3))
    Image.fromarray(color).save(path, quality=95)


def prepare(raw, *options, steps=("mattes", "clouds")):
    return run_script(
        "experiments/prepare.py",
        f"--subject={raw.name}",
        f"--data-root={raw.parent}",
        f"--capture.cache-dir={raw.parent.parent / CACHE}",
        "--workers=1",
        *options,
        "--steps",
        *steps,
    )


def made_of(raw):
    """Where what is made of a capture goes."""
    return prepared_folder(raw, raw.parent.parent / CACHE)


def mattes_in(folder):
    return sorted(folder.glob("sequences/*/alpha_maps/*.mp4"))


def open_prepared(root, subject, cache):
    cfg = CaptureConfig(width=WIDTH, cache_dir=cache)
    return open_located(root, subject, cfg, progress=False, need_driving=False)
