import numpy as np

from npga_jax.data.mattes import has_white_corners, is_on_white, take_off_white


def test_what_was_put_on_white_is_taken_off_and_put_back():
    rng = np.random.default_rng(0)
    matte = np.zeros((40, 30), np.uint8)
    matte[10:30, 8:22] = rng.integers(0, 256, (20, 14))
    share = matte[..., None] / 255
    rgb = rng.integers(0, 256, (40, 30, 3))
    white = np.rint(rgb * share + 255 * (1 - share)).astype(np.uint8)
    assert has_white_corners(white) and is_on_white(white, matte)
    own = take_off_white(white, matte)
    solid = matte > 200
    assert np.abs(own[solid].astype(int) - rgb[solid]).max() <= 1
    again = own * share + 255 * (1 - share)
    assert np.abs(again - white).max() <= 1


def test_other_backgrounds_are_left_alone():
    matte = np.zeros((40, 30), np.uint8)
    grey = np.full((40, 30, 3), 220, np.uint8)
    assert not has_white_corners(grey) and not is_on_white(grey, matte)
    # Nothing is bare: nobody knows what the background was.
    assert not is_on_white(np.full_like(grey, 255), matte + 255)
