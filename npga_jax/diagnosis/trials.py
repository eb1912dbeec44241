"""Whether undoing a cause makes a capture agree better than chance would."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from npga_jax.diagnosis.scoring import Match

_SURE, _FAIR = 6.0, 4.0
"""Standard errors that a mean over cameras improves by."""
_ONE = 4.0
"""Standard errors beyond which one camera is better or worse."""
_MIN_EXPLAINED = 1 / 3
"""Share of what did not agree that has to agree afterwards."""
_GOOD = 0.5
"""Score of what agrees on the whole."""


class Trial(NamedTuple):
    """What becomes of the cameras' scores. Arrays are by camera [C]."""

    before: np.ndarray
    after: np.ndarray
    error: np.ndarray  # of each difference, by chance

    @property
    def gain(self) -> np.ndarray:
        """By which the scores grow."""
        return self.after - self.before

    @property
    def better(self) -> np.ndarray:
        """Which cameras agree better than chance would have it [C] bool."""
        return self.gain > _ONE * self.error

    @property
    def worse(self) -> np.ndarray:
        """Which cameras agree less [C] bool."""
        return self.gain < -_ONE * self.error

    @property
    def significance(self) -> float:
        """The mean gain in its standard errors: by chance, and between cameras."""
        count = len(self.gain)
        spread = self.gain.var(ddof=1) if count > 1 else 0.0
        error = np.sqrt(((self.error**2).mean() + spread) / count)
        return float(self.gain.mean() / max(error, 1e-9))

    @property
    def holds_for_all(self) -> bool:
        """Whether the cause is that of the whole rig."""
        count = len(self.gain)
        return bool(
            self.significance > _FAIR
            and self._explains(self.before.mean(), self.after.mean())
            and 2 * self.better.sum() >= count
            and 10 * self.worse.sum() <= count
        )

    @property
    def is_sure(self) -> bool:
        """Whether hardly any camera is left that would not be explained."""
        return bool(
            self.significance > _SURE
            and 4 * self.better.sum() >= 3 * len(self.gain)
            and self.after.mean() > _GOOD
        )

    def holds_for(self, camera: int, usual: float) -> bool:
        """Whether the cause is that of one camera, which then is like the others.

        Args:
          camera: Its index.
          usual: The score that the others have.
        """
        return bool(
            self.better[camera]
            and self._explains(self.before[camera], self.after[camera])
            and self.after[camera] > 0.75 * usual
        )

    @staticmethod
    def _explains(before: float, after: float) -> bool:
        return after - before > _MIN_EXPLAINED * (1 - before)


def compare(before: Sequence[Match], after: Sequence[Match]) -> Trial:
    """Compares what was measured as given, and with a cause undone."""
    errors = [np.hypot(x.error, y.error) for x, y in zip(before, after, strict=True)]
    return Trial(
        np.array([m.score for m in before]),
        np.array([m.score for m in after]),
        np.array(errors),
    )


def is_rival(best: Trial, other: Trial) -> bool:
    """Whether another cause explains as much, as far as can be told."""
    difference = Trial(other.after, best.after, best.error)
    return difference.significance < _FAIR


def say_change(
    before: Sequence[Match], after: Sequence[Match], *, of: str = "the cloud's points"
) -> str:
    """Says what was measured, as means over the cameras: a clause.

    Args:
      before: As given.
      after: So changed.
      of: What was compared with the mattes.
    """

    def mean(matches: Sequence[Match], name: str) -> float:
        return float(np.mean([getattr(m, name) for m in matches]))

    words = []
    if not np.isnan(mean(before, "on")):
        shares = [f"{mean(m, 'on'):.0%}" for m in (before, after)]
        words.append(
            f"as given {shares[0]} of {of} are on the mattes, so changed {shares[1]}"
        )
    if not np.isnan(mean(before, "color")):
        values = [f"{mean(m, 'color'):.2f}" for m in (before, after)]
        words.append(
            "colours of cloud and images correlate by "
            f"{values[0]} as given, by {values[1]} so changed"
        )
    if not words:
        shares = [f"{mean(m, 'inside'):.0%}" for m in (before, after)]
        words.append(
            f"as given {shares[0]} of {of} are in the images, so changed {shares[1]}"
        )
    return "; ".join(words)
