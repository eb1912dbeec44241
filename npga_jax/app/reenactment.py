"""One person's codes and head motion for another's avatar.

NPGA feeds the driver's codes to the avatar as they are and keeps the avatar's own head
pose (section 3.13). What else is here are choices of this project.
"""

import numpy as np

from npga_jax.core import most_neutral_row


def smooth_codes(expr: np.ndarray, weight: float) -> np.ndarray:
    """Exponential smoothing in time, which trails behind fast motion.

    Args:
      expr: [T, E] codes in the order of their frames.
      weight: of what is smooth already, in [0, 1); 0 changes nothing, Gaussian Head
        Avatar takes 0.5.

    Returns:
      [T, E].
    """
    smooth = np.array(expr)
    for i in range(1, len(smooth)):
        smooth[i] = weight * smooth[i - 1] + (1 - weight) * expr[i]
    return smooth


def relative_codes(expr: np.ndarray, target_neutral: np.ndarray) -> np.ndarray:
    """The driver's change from the driver's own neutral, put on the target's neutral.

    Args:
      expr: [T, E] of the driver; the smallest one is taken for neutral.
      target_neutral: [E].

    Returns:
      [T, E].
    """
    return target_neutral + (expr - expr[most_neutral_row(expr)])


def follow_motion(start: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """A head that moves from its own pose on as another one moves in its own frame.

    Args:
      start: [4, 4] world_from_head before anything moves.
      poses: [T, 4, 4] of the other; the first one is where its motion begins.

    Returns:
      [T, 4, 4] float32, the first one `start`.
    """
    first = poses[0].astype(np.float64)
    return (start @ np.linalg.solve(first[None], poses)).astype(np.float32)


def there_and_back(length: int, count: int) -> np.ndarray:
    """Indices [count] that walk through `length` frames to and fro, without a jump."""
    period = max(2 * (length - 1), 1)
    step = np.arange(count) % period
    return np.minimum(step, period - step) if length > 1 else np.zeros(count, int)
