"""Whether undoing a cause makes a capture agree better than chance would."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from npga_jax.diagnosis.scoring import Match

_SURE, _FAIR = 6.0, 4.0
"""Standard errors that a mean over cameras improves by."""
_TOLD = 3.0
"""Standard errors by which one cause has to explain more than another."""
_ONE = 4.0
"""Standard errors beyond which one camera alone is better or worse."""
_SEEN, _MOST, _FEW = 2.0, 0.5, 0.1
"""Of a cause of the whole rig: standard errors and share of the cameras that show it,
and share of those that may speak against it."""
_MIN_EXPLAINED = 1 / 3
"""Share of what did not agree that has to agree afterwards."""
ALIKE = 0.75
"""Of the others' agreement, what a camera has to reach."""
_GOOD = 0.5
"""Agreement on the whole that is no chance."""


class Trial(NamedTuple):
    """What becomes of the cameras' agreement. Arrays are by camera [C], from 0 to 1."""

    before: np.ndarray
    after: np.ndarray
    error: np.ndarray  # of each difference, by chance

    @property
    def gain(self) -> np.ndarray:
        """By which the agreement grows."""
        return self.after - self.before

    @property
    def significance(self) -> float:
        """The mean gain in its standard errors: by chance, and between cameras.

        Cameras for which the change is none (a front camera's inverse may be itself)
        say nothing of how much it differs between the others.
        """
        concerned = np.abs(self.gain) > self.error
        gain, error = self.gain[concerned], self.error[concerned]
        if not len(gain):
            return 0.0
        spread = gain.var(ddof=1) if len(gain) > 1 else 0.0
        total = np.sqrt(((error**2).mean() + spread) / len(gain))
        return float(gain.mean() / max(total, 1e-9))

    @property
    def num_worse(self) -> int:
        """How many cameras agree less than chance would have it."""
        return int((self.gain < -_ONE * self.error).sum())

    @property
    def holds_for_all(self) -> bool:
        """Whether the cause is that of the whole rig."""
        return bool(
            self.significance > _FAIR
            and self._explains(self.before.mean(), self.after.mean())
            and (self.gain > _SEEN * self.error).mean() >= _MOST
            and not is_refuted(self.num_worse, len(self.gain))
        )

    @property
    def is_sure(self) -> bool:
        """Whether it is beyond doubt that this, or what does the same, is the cause."""
        return bool(self.significance > _SURE and self.after.mean() > _GOOD)

    def holds_for(self, camera: int) -> bool:
        """Whether the cause is that of one camera, which then is like the others.

        Args:
          camera: Its index.
        """
        return bool(
            self.gain[camera] > _ONE * self.error[camera]
            and self._explains(self.before[camera], self.after[camera])
            and self.after[camera] > ALIKE * np.median(self.before)
        )

    @staticmethod
    def _explains(before: float, after: float) -> bool:
        return after - before > _MIN_EXPLAINED * (1 - before)


def is_refuted(num_worse: int, num_cameras: int) -> bool:
    """Whether too many cameras speak against a cause for it to be the whole rig's."""
    return num_worse > _FEW * num_cameras


def compare(before: Sequence[Match], after: Sequence[Match]) -> Trial:
    """Compares what was measured as given, and with a cause undone.

    Parts that do not change in any camera tell nothing, and are left out.
    """
    old, new = ([m.parts for m in matches] for matches in (before, after))
    changed = [
        name
        for name in old[0]
        if any(x[name] != y[name] for x, y in zip(old, new, strict=True))
    ]
    names = changed or list(old[0])
    values = [np.array([[m[n] for n in names] for m in parts]) for parts in (old, new)]
    counts = [
        np.array(
            [[m.color_count if n == "color" else m.count for n in names] for m in x]
        )
        for x in (before, after)
    ]
    variance = sum(
        (clipped * (1 - clipped) / np.maximum(count, 1.0)).sum(1)
        for clipped, count in zip(np.clip(values, 0.05, 0.95), counts, strict=True)
    )
    error = np.sqrt(variance) / len(names)
    return Trial(values[0].mean(1), values[1].mean(1), error)


def is_rival(best: Sequence[Match], other: Sequence[Match]) -> bool:
    """Whether another cause explains as much, as far as can be told."""
    return compare(other, best).significance < _TOLD


def say_change(
    before: Sequence[Match], after: Sequence[Match], *, of_cloud: bool = True
) -> str:
    """Says what was measured, as means over the cameras: a clause.

    Args:
      before: As given.
      after: So changed.
      of_cloud: Whether a cloud was compared with the pictures, else mattes with each
        other.
    """

    def mean(matches: Sequence[Match], name: str) -> float:
        return float(np.mean([getattr(m, name) for m in matches]))

    of = "points of the cloud" if of_cloud else "space that the other mattes leave"
    words = []
    if not np.isnan(mean(before, "on")):
        shares = [f"{mean(m, 'on'):.0%}" for m in (before, after)]
        words.append(
            f"{of} on the mattes: {shares[0]} as given, {shares[1]} so changed"
        )
    if not np.isnan(mean(before, "color")):
        values = [f"{mean(m, 'color'):.2f}" for m in (before, after)]
        words.append(
            f"correlation of its colours with the images': {values[0]} as given, "
            f"{values[1]} so changed"
        )
    if not words:
        shares = [f"{mean(m, 'inside'):.0%}" for m in (before, after)]
        words.append(
            f"{of} in the images: {shares[0]} as given, {shares[1]} so changed"
        )
    return "; ".join(words)


def say_rivals(causes: Sequence[str]) -> str:
    """Says that other causes would explain it too: what follows the evidence."""
    return f"; it would be explained as well if {', or '.join(causes[:3])}"
