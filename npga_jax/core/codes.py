"""Driving codes as rows of numbers, whatever model they are of: zero is neutral."""

import numpy as np


def neutral_first(expr: np.ndarray) -> np.ndarray:
    """Rows of codes [T, E] in the order of their length; of equals, the first first.

    Returns:
      [T] int: the most neutral row, and last the one with the most expression.
    """
    return np.argsort(np.linalg.norm(expr, axis=-1), kind="stable")


def most_neutral_row(expr: np.ndarray) -> int:
    """The smallest of codes [T, E]."""
    return int(neutral_first(expr)[0])
