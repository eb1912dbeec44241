"""Pictures come back as they were written, or not at all."""

import imageio.v3 as iio
import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.io.pictures import write_png


def test_round_trip(tmp_path):
    path = tmp_path / "new" / "picture.png"
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    write_png(path, image)
    np.testing.assert_array_equal(iio.imread(path), image)
    assert list(path.parent.iterdir()) == [path]


def test_what_is_no_picture_is_named(tmp_path):
    path = tmp_path / "picture.png"
    for image in (
        np.zeros((5, 7, 3)),
        np.zeros((5, 7), np.uint8),
        np.zeros((5, 7, 4), np.uint8),
        np.zeros((0, 7, 3), np.uint8),
    ):
        with pytest.raises(ValueError, match=r"an image is .* \[H, W, 3\] uint8"):
            write_png(path, image)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_png(tmp_path / "file" / "a.png", np.zeros((5, 7, 3), np.uint8))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
