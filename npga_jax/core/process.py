"""What every long loop needs: Ctrl-C between steps, durations, memory."""

import os
import resource
import signal
import sys
import threading

import psutil


class Interrupts:
    """Holds Ctrl-C back until the step in hand is done; a second one acts at once.

    During a step the old state's memory is already given away, and the new state is
    not there yet: nothing could be saved. Where the signal does not mean Ctrl-C (a
    background job ignores it, and only the main thread can listen) it is left alone.
    """

    def __init__(self):
        self.requested = False
        self._is_listening = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )

    def __enter__(self) -> "Interrupts":
        if self._is_listening:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_listening:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, *_: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"\nstopping after this step; Ctrl-C again: without saving\n")


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
