"""Mattes of made-up people, whose true share of every pixel is known."""

import numpy as np
import pytest
from scipy import ndimage

from npga_jax.data import LINEAR_LEVELS
from npga_jax.preparation.mattes import estimate_matte

HEIGHT, WIDTH = 360, 240


def to_levels(linear):
    return np.searchsorted(LINEAR_LEVELS[1:], linear, side="right").astype(np.uint8)


def plate(seed=0):
    """A wall with soft light and edges, linear."""
    rng = np.random.default_rng(seed)
    light = ndimage.gaussian_filter(rng.normal(size=(HEIGHT, WIDTH)), 30)
    wall = 0.45 + 2 * light[..., None] * [1.0, 1.0, 0.95]
    wall[40:60] *= 0.5
    wall[:, 200:206] *= 0.2
    return np.clip(wall, 0.02, 0.9)


def disc(row, column, radius):
    """Share of a disc in every pixel, with a soft rim."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.clip((radius - np.hypot(y - row, x - column)) / 4 + 0.5, 0, 1)


def expose(linear, seed=1):
    noise = np.random.default_rng(seed).normal(size=linear.shape)
    return to_levels(np.clip(linear + noise * np.sqrt(linear / 4000), 0, 1))


def person(alpha, wall, color=(0.45, 0.27, 0.2), shadow=0.0, exposure=1.0):
    cast = shadow * ndimage.gaussian_filter(np.roll(alpha, 10, axis=1), 20)
    mixed = alpha[..., None] * np.array(color)
    mixed = mixed + (1 - alpha[..., None]) * wall * (1 - cast[..., None])
    return expose(exposure * mixed)


@pytest.mark.parametrize("shadow", [0.0, 0.25])
@pytest.mark.parametrize("exposure", [0.95, 1.0, 1.04])
def test_the_share_of_every_pixel_is_found(shadow, exposure):
    wall, alpha = plate(), disc(200, 120, 80)
    image = person(alpha, wall, shadow=shadow, exposure=exposure)
    matte = estimate_matte(image, expose(wall, seed=2))
    error = np.abs(matte.alpha / 255 - alpha)
    assert error.mean() < 0.006
    rim = (alpha > 0) & (alpha < 1)
    assert error[rim].mean() < 0.12
    assert matte.people == 1
    # A shadow over the whole wall is as good as a darker frame.
    assert matte.exposure == pytest.approx(exposure, abs=0.02)
    assert matte.explained > 0.4


def test_a_shadow_is_not_the_person():
    wall, alpha = plate(), disc(200, 90, 60)
    image = person(alpha, wall, shadow=0.3)
    beside = disc(200, 175, 20) > 0.5
    assert estimate_matte(image, expose(wall, seed=2)).alpha[beside].max() < 40


def test_thin_strands_are_partly_there():
    wall, alpha = plate(), disc(230, 120, 70)
    columns = np.arange(70, 170, 7)
    alpha[130:175, columns] = np.maximum(alpha[130:175, columns], 0.9)
    image = person(alpha, wall, color=(0.05, 0.04, 0.03))
    found = estimate_matte(image, expose(wall, seed=2)).alpha / 255
    assert found[140:150][:, columns].mean() > 0.6
    assert found[140:150][:, columns + 3].mean() < 0.25


def test_nobody_is_nobody():
    matte = estimate_matte(expose(plate()), expose(plate(), seed=2))
    assert matte.people == 0 and matte.alpha.max() == 0
    assert matte.explained > 0.9


def test_two_people_are_counted():
    wall = plate()
    alpha = disc(200, 70, 50) + disc(200, 180, 40)
    assert estimate_matte(person(alpha, wall), expose(wall, seed=2)).people == 2


def test_the_plate_of_another_camera_explains_little():
    alpha = disc(200, 120, 80)
    other = np.clip(plate(seed=5)[::-1] * [0.5, 1.2, 0.8], 0.02, 0.9)
    matte = estimate_matte(person(alpha, plate()), expose(other, seed=2))
    assert matte.explained < 0.25


def test_sizes_that_differ_are_refused():
    image = expose(plate())
    with pytest.raises(ValueError, match="differ in size"):
        estimate_matte(image, image[:-1])
