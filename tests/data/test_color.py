import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.data import color_table
from npga_jax.data.color import apply_color_calibration, expand_polynomial
from npga_jax.data.color_table import ColorTable

PIXEL = np.array([[0.5, 0.2, 0.1]])


@pytest.mark.parametrize(
    ("num_terms", "expected"),
    [
        (3, [0.5, 0.2, 0.1]),
        (4, [0.5, 0.2, 0.1, 1]),
        (5, [0.5, 0.2, 0.1, 0.01, 1]),
        (7, [0.5, 0.2, 0.1, 0.1, 0.05, 0.02, 1]),
        (8, [0.5, 0.2, 0.1, 0.1, 0.05, 0.02, 0.01, 1]),
        (10, [0.5, 0.2, 0.1, 0.1, 0.05, 0.02, 0.25, 0.04, 0.01, 1]),
        (11, [0.5, 0.2, 0.1, 0.1, 0.05, 0.02, 0.25, 0.04, 0.01, 0.01, 1]),
    ],
)
def test_terms_are_in_order(num_terms, expected):
    np.testing.assert_allclose(expand_polynomial(PIXEL, num_terms)[0], expected)


def encode(linear: float) -> int:
    """The sRGB curve, written down once more."""
    if linear <= 0.0031308:
        value = 12.92 * linear
    else:
        value = 1.055 * linear ** (1 / 2.4) - 0.055
    return int(255 * min(max(value, 0.0), 1.0))


def decode(level: int) -> float:
    x = level / 255
    return x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4


@pytest.mark.parametrize("num_terms", [3, 4, 10, 11])
def test_matches_the_formula_pixel_by_pixel(num_terms):
    rng = np.random.default_rng(num_terms)
    ccm = rng.normal(0, 0.1, (3, num_terms))
    ccm[:, :3] += np.eye(3)
    image = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    out = apply_color_calibration(image, ccm)
    for pixel, result in zip(image.reshape(-1, 3), out.reshape(-1, 3), strict=True):
        r, g, b = map(decode, pixel)
        pairs, squares = [r * g, r * b, g * b], [r * r, g * g, b * b]
        terms = {
            3: [r, g, b],
            4: [r, g, b, 1],
            10: [r, g, b, *pairs, *squares, 1],
            11: [r, g, b, *pairs, *squares, r * g * b, 1],
        }[num_terms]
        assert result.tolist() == [encode(x) for x in ccm @ terms]


def test_known_pixel():
    # Level 188 is 0.5029 linear; half of it is 0.2514, level 137.1; an offset of 0.1
    # makes 0.3514 of that, level 159.9.
    ccm = np.hstack([0.5 * np.eye(3), np.zeros((3, 1))])
    pixel = np.full((1, 3), 188, np.uint8)
    assert apply_color_calibration(pixel, ccm).tolist() == [[137] * 3]
    ccm[:, 3] = 0.1
    assert apply_color_calibration(pixel, ccm).tolist() == [[159] * 3]


def test_identity_changes_nothing():
    levels = np.arange(256, dtype=np.uint8)
    image = np.stack([levels, levels[::-1], np.roll(levels, 9)], axis=-1)
    np.testing.assert_array_equal(apply_color_calibration(image, np.eye(3)), image)


def test_result_is_clipped():
    image = np.full((2, 2, 3), 128, np.uint8)
    assert (apply_color_calibration(image, 100 * np.eye(3)) == 255).all()
    assert (apply_color_calibration(image, -np.eye(3)) == 0).all()


def test_chunks_do_not_show():
    image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    ccm = np.eye(3) + 0.1
    out = apply_color_calibration(image, ccm)
    np.testing.assert_array_equal(out[-3:], apply_color_calibration(image[-3:], ccm))


@pytest.mark.parametrize("num_terms", [1, 6, 14])
def test_unknown_polynomial_is_an_error(num_terms):
    image = np.zeros((1, 1, 3), np.uint8)
    with pytest.raises(InputError, match=f"{num_terms} terms is not known"):
        apply_color_calibration(image, np.zeros((3, num_terms)))


@pytest.mark.parametrize("num_terms", [3, 4, 11])
def test_a_table_gives_the_same_levels(num_terms):
    rng = np.random.default_rng(num_terms)
    ccm = rng.normal(0, 0.1, (3, num_terms))
    ccm[:, :3] += np.eye(3)
    table = ColorTable(ccm)
    black = np.zeros((9, 7, 3), np.uint8)
    images = [rng.integers(0, 256, (60, 40, 3), dtype=np.uint8) for _ in range(3)]
    for image in (*images, black, *images, images[0][::2, ::-1]):
        expected = apply_color_calibration(image, ccm)
        np.testing.assert_array_equal(table(image), expected)


def test_a_table_works_each_colour_out_once(monkeypatch):
    asked = []

    def count(rgb, ccm):
        asked.append(len(np.unique(rgb, axis=0)))
        return apply_color_calibration(rgb, ccm)

    monkeypatch.setattr(color_table, "apply_color_calibration", count)
    table = ColorTable(0.9 * np.eye(3))
    first = np.random.default_rng(0).integers(0, 4, (30, 20, 3), dtype=np.uint8)
    table(first)
    table(first[::-1])
    table(first + np.uint8(4))
    assert asked == [64, 64]  # Of each of the two images; the same again costs nothing.


def test_without_numba_nothing_changes(monkeypatch):
    monkeypatch.setattr(color_table, "_look_up", lambda: None)
    image = np.random.default_rng(1).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    ccm = np.eye(3) + 0.1
    out = ColorTable(ccm)(image)
    np.testing.assert_array_equal(out, apply_color_calibration(image, ccm))


def test_a_table_of_an_unknown_polynomial_is_an_error():
    with pytest.raises(InputError, match="6 terms is not known"):
        ColorTable(np.zeros((3, 6)))(np.zeros((1, 1, 3), np.uint8))
