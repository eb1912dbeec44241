"""What every long loop needs: signals between steps, durations, memory."""

import os
import resource
import signal
import sys
import threading
from typing import Any

import psutil

from npga_jax.core.errors import Stopped


class Interrupts:
    """Holds Ctrl-C and SIGTERM back until the step in hand is done.

    During a step the old state's memory is already given away, and the new state is
    not there yet: nothing could be saved. A second Ctrl-C acts at once; another SIGTERM
    changes nothing, as machines send several. A signal whose handler is not Python's
    own is left alone: a background job ignores Ctrl-C, and still ends at SIGTERM. So
    are all of them outside the main thread, which alone can listen.

    Attributes:
      signal: the one that came first, None until one has.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        self._replaced: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether to stop after this step."""
        return self.signal is not None

    def raise_if_requested(self) -> None:
        """Ends a loop that has stopped and saved.

        Raises:
          KeyboardInterrupt: Ctrl-C came.
          Stopped: SIGTERM came.
        """
        if self.signal == signal.SIGTERM:
            raise Stopped
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            own = {
                signal.SIGINT: signal.default_int_handler,
                signal.SIGTERM: signal.SIG_DFL,
            }
            for number, handler in own.items():
                if signal.getsignal(number) is handler:
                    signal.signal(number, self._note)
                    self._replaced[number] = handler
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._replaced.items():
            signal.signal(number, handler)
        self._replaced.clear()

    def _note(self, number: int, _: object) -> None:
        if self.signal is None:
            self.signal = signal.Signals(number)
            # Not print: the signal may have come in the middle of one.
            os.write(2, b"\nstopping after this step; Ctrl-C: without saving\n")
        elif number == signal.SIGINT:
            raise KeyboardInterrupt


def duration(seconds: float) -> str:
    """Seconds as minutes:seconds, with hours where there are any."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def current_rss_mb() -> float:
    """Resident memory now, in MiB."""
    return psutil.Process().memory_info().rss / 2**20
