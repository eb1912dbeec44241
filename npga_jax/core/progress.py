"""The one line that says how far a loop is."""

import sys
import time

from npga_jax.core.process import duration

_PAUSE_TERMINAL = 0.2  # seconds
_PAUSE_FILE = 30.0  # seconds: a log should stay readable


class Progress:
    """A line on stderr: name, done/total, what the loop adds, time, time left.

    A terminal's line is written over; elsewhere a line is added now and then. The line
    of the total is always shown.

        with Progress("distilling F", 2_000, unit="steps") as progress:
            for step in range(2_000):
                ...
                progress(step + 1, f"loss {loss:.3f} mm")
    """

    def __init__(
        self,
        name: str,
        total: int,
        *,
        unit: str = "",
        start: int = 0,
        show: bool = True,
    ):
        """Starts the clock.

        Args:
          name: what is done.
          total: how much there is to do.
          unit: what is counted.
          start: how much was done before; it does not count for the speed.
          show: False says nothing.
        """
        self._name, self._total, self._unit = name, total, unit
        self._start, self._show = start, show
        self._began = time.monotonic()
        self._shown, self._width = self._began, 0

    def __call__(self, done: int, note: str = "") -> None:
        """Says that `done` of the total are done.

        Args:
          done: those before `start` included.
          note: further words, such as a loss.
        """
        if not self._show:
            return
        is_terminal = sys.stderr.isatty()
        now = time.monotonic()
        is_last = done >= self._total
        pause = _PAUSE_TERMINAL if is_terminal else _PAUSE_FILE
        if not is_last and now - self._shown < pause:
            return
        self._shown = now
        spent = now - self._began
        words = [f"{self._name}: {done:,}/{self._total:,} {self._unit}".rstrip()]
        words += [note] if note else []
        words.append(duration(spent))
        if not is_last and done > self._start:
            left = spent * (self._total - done) / (done - self._start)
            words.append(f"eta {duration(left)}")
        line = "  ".join(words)
        if is_terminal:
            end = "\n" if is_last else ""
            text = f"\r{line:<{self._width}}"
            self._width = 0 if is_last else len(line)
        else:
            end, text = "\n", line
        print(text, end=end, file=sys.stderr, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._width:  # A terminal's line that did not come to its end.
            print(file=sys.stderr, flush=True)
            self._width = 0
