"""Tests on the way: which views, and what is said of regions that nobody labelled."""

import numpy as np

from npga_jax.data.opening import open_capture
from npga_jax.data.settings import CaptureConfig
from npga_jax.data.splits import Split, Views, holdout_split
from npga_jax.training.curve import make_test_fn, some_views
from npga_jax.training.settings import TrainConfig
from tests.synthetic_capture import write_capture

HELD_OUT = "222200037"


def test_some_views_are_held_out_ones_from_few_cameras():
    cameras = ("1", "2", HELD_OUT, "3", "4", "5")
    split = Split(
        train=(),
        novel_view=tuple(Views(f"n{i}", (HELD_OUT,)) for i in range(30)),
        self_reenactment=tuple(Views(f"s{i}", cameras) for i in range(5)),
    )
    chosen = some_views(split, HELD_OUT)
    assert [v.timestep for v in chosen["self_reenactment"]] == ["s0", "s2", "s4"]
    for views in chosen["self_reenactment"]:
        assert views.cameras == (HELD_OUT, "1", "4")
    assert [v.timestep for v in chosen["novel_view"]] == [
        f"n{i}" for i in range(0, 30, 3)
    ]


def test_regions_without_labels_are_left_out(tmp_path):
    capture = write_capture(tmp_path, with_labels=False)
    capture = open_capture(
        capture.subject, capture.root, CaptureConfig(width=32), progress=False
    )
    split = holdout_split(capture, "FREE", HELD_OUT)

    def white(expr, world_from_head, viewmats, Ks):
        return np.ones((len(Ks), capture.height, capture.width, 3), np.float32)

    test = make_test_fn(TrainConfig(), capture, split, lambda state: white)
    values = test(None)
    assert sorted(values) == ["novel_view_full", "self_reenactment_full"]
    assert all(0 < value < 60 for value in values.values())
