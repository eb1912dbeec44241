"""Adds tracked codes of the small ball to a synthetic capture, and its prior."""

from pathlib import Path

import numpy as np

from npga_jax.nphm.storage import save_head_model
from npga_jax.tracking.files import model_name
from npga_jax.tracking.head_prior import open_prior
from tests.small_head_model import BALL, make_ball
from tests.synthetic_capture import SyntheticCapture, write_driving


def write_prior(path: Path, motion: float = 0.06) -> str:
    """Writes the ball as a head model; returns the name that codes give it."""
    save_head_model(path, make_ball(motion), {"code_std": {"geo": 1.0, "exp": 1.0}})
    return model_name(open_prior(path))


def write_tracked(capture: SyntheticCapture, model: str, seed: int = 0) -> None:
    """Writes nphm.npz of all sequences."""
    rng = np.random.default_rng(seed)
    geo = rng.normal(0, 0.3, BALL.lat_dim_geo).astype(np.float32)
    for sequence in capture.sequences:
        write_driving(
            capture.folder / "sequences" / sequence / "tracking" / "nphm.npz",
            expr=rng.normal(size=(capture.num_frames, BALL.lat_dim_exp)),
            expr_names=None,
            world_from_head=capture.world_from_head[sequence],
            z_id=geo,
            model=model,
        )
