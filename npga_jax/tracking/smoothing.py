"""Smooths what was measured frame by frame, without lag.

Whittaker's smoother looks ahead as far as it looks back: it holds to the measurements
and to small second differences. How strongly follows from the measurements themselves,
by generalised cross-validation, which is cheap in the cosine basis (Garcia 2010).
"""

import itertools

import numpy as np
import scipy.fft

_FEWEST = 5
_STRENGTHS = 10.0 ** np.linspace(-3, 4, 57)


def smooth_track(values: np.ndarray) -> np.ndarray:
    """The smooth track that cross-validation chooses: [T, D] -> [T, D].

    All components have one strength: they are of one kind, measured alike.

    Args:
      values: a frame each, without gaps; fewer than five are left as they are.
    """
    count = len(values)
    if count < _FEWEST:
        return values
    waves = scipy.fft.dct(values.astype(np.float64), axis=0, norm="ortho")
    stiffness = (2 - 2 * np.cos(np.pi * np.arange(count) / count)) ** 2
    scores = []
    for strength in _STRENGTHS:
        kept = 1 / (1 + strength * stiffness)
        left = np.sum(((1 - kept)[:, None] * waves) ** 2) / values.size
        scores.append(left / max(1 - kept.sum() / count, 1e-9) ** 2)
    kept = 1 / (1 + _STRENGTHS[int(np.argmin(scores))] * stiffness)
    smooth = np.asarray(scipy.fft.idct(kept[:, None] * waves, axis=0, norm="ortho"))
    return smooth.astype(values.dtype)


def runs_of(frame_ids: np.ndarray) -> list[slice]:
    """Stretches without a gap of ascending frame numbers [T]."""
    breaks = np.flatnonzero(np.diff(frame_ids) > 1) + 1
    edges = [0, *breaks.tolist(), len(frame_ids)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]
