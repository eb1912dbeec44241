"""Smoothing without lag, as strong as the noise asks for."""

import numpy as np

from npga_jax.tracking.smoothing import runs_of, smooth_track


def test_noise_is_taken_off_and_motion_left():
    rng = np.random.default_rng(0)
    time = np.linspace(0, 1, 120)
    true = np.stack([np.sin(2 * np.pi * (k + 1) * time) for k in range(4)], axis=1)
    noisy = true + 0.1 * rng.normal(size=true.shape)
    smooth = smooth_track(noisy)
    before, after = np.abs(noisy - true).mean(), np.abs(smooth - true).mean()
    assert after < 0.6 * before
    # No lag: shifted either way it fits worse.
    for shift in (-2, 2):
        assert np.abs(np.roll(smooth, shift, 0) - true)[5:-5].mean() > 1.5 * after


def test_strength_follows_the_noise():
    time = np.linspace(0, 1, 200)[:, None]
    blink = np.exp(-(((time - 0.5) / 0.012) ** 2))  # five frames
    quiet = smooth_track(blink + 1e-4 * np.random.default_rng(1).normal(size=(200, 1)))
    assert quiet.max() > 0.9
    rest = np.random.default_rng(2).normal(size=(200, 3))
    assert smooth_track(rest).std() < 0.4 * rest.std()


def test_lines_and_short_tracks_stay():
    line = np.linspace(0, 3, 50)[:, None] * [1.0, -2.0]
    np.testing.assert_allclose(smooth_track(line), line, atol=0.02)
    short = np.array([[1.0], [5.0], [2.0]])
    np.testing.assert_array_equal(smooth_track(short), short)


def test_gaps_part_a_track():
    parts = runs_of(np.array([3, 4, 5, 9, 10, 20]))
    assert [(p.start, p.stop) for p in parts] == [(0, 3), (3, 5), (5, 6)]
