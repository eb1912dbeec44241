"""The line that says how far a loop is, on a terminal and in a log."""

import itertools
import sys

import pytest

from npga_jax.core import progress as module
from npga_jax.core.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A second passes between looks at the clock."""
    ticks = itertools.count()
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(ticks)))


@pytest.mark.usefixtures("clock")
def test_a_log_gets_a_line_now_and_then_and_the_last(capsys):
    with Progress("fit", 100, unit="steps") as progress:
        for done in range(1, 101):
            progress(done, f"loss {100 - done}")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "fit: 30/100 steps  loss 70  0:30  eta 1:10",
        "fit: 60/100 steps  loss 40  1:00  eta 0:40",
        "fit: 90/100 steps  loss 10  1:30  eta 0:10",
        "fit: 100/100 steps  loss 0  1:40",
    ]


@pytest.mark.usefixtures("clock")
def test_a_terminal_gets_one_line_that_is_left_whole(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("fit", 3) as progress:
        progress(1, "a long note")
        progress(2)
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.endswith("\n")
    first, second = err.rstrip("\n").split("\r")[1:]
    assert len(second) == len(first)  # Nothing of the first is left to be seen.
    assert second.startswith("fit: 2/3  0:02  eta 0:01")


@pytest.mark.usefixtures("clock")
def test_what_was_done_before_does_not_count_for_the_speed(capsys):
    progress = Progress("fit", 1_000, start=900)
    for done in range(901, 931):
        progress(done)
    assert capsys.readouterr().err == "fit: 930/1,000  0:30  eta 1:10\n"


def test_silence(capsys):
    with Progress("fit", 1, show=False) as progress:
        progress(1)
    assert capsys.readouterr().err == ""
