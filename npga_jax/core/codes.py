"""Driving codes as rows of numbers, whatever model they are of."""

import numpy as np


def most_neutral_row(expr: np.ndarray) -> int:
    """The smallest of codes [T, E]."""
    return int(np.argmin(np.linalg.norm(expr, axis=-1)))
