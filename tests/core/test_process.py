"""Signals during a loop: the step in hand is done, what it gave is kept."""

import signal
import subprocess
import sys

import pytest

from npga_jax.core.errors import Stopped
from npga_jax.core.process import Interrupts

pytestmark = pytest.mark.usefixtures("own_signals")

SCRIPT = """
import dataclasses, signal, sys, time
from npga_jax.app import cli
from npga_jax.core import Interrupts
@dataclasses.dataclass(frozen=True)
class Settings:
    step: int = 0
def main(cfg):
    with Interrupts() as interrupts:
        print("started", flush=True)
        while not interrupts.requested:
            time.sleep(0.01)
        print("saved", flush=True)
    interrupts.raise_if_requested()
cli.run(main, Settings, argv=[])
"""


@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Stopped)],
)
def test_the_signal_that_came_first_says_how_the_loop_ends(number, error):
    with Interrupts() as interrupts:
        assert not interrupts.requested and interrupts.signal is None
        interrupts.raise_if_requested()
        signal.raise_signal(number)
        assert interrupts.requested and interrupts.signal is number
        signal.raise_signal(signal.SIGTERM)
    assert interrupts.signal is number
    with pytest.raises(KeyboardInterrupt) as raised:
        interrupts.raise_if_requested()
    assert raised.type is error
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_acts_at_once_where_the_loop_is_to_end_already(first):
    with Interrupts():
        signal.raise_signal(first)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_handlers_of_others_are_left_alone():
    seen = []
    signal.signal(signal.SIGTERM, lambda *_: seen.append("theirs"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert seen == ["theirs"] and not interrupts.requested


@pytest.mark.parametrize(
    ("sent", "background", "code"),
    [
        (signal.SIGTERM, False, 0),
        (signal.SIGTERM, True, 0),
        (signal.SIGINT, False, 130),
    ],
)
def test_a_command_saves_and_says_by_its_code_who_ended_it(sent, background, code):
    if background:  # As a shell starts `command &`.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "started\n"
        process.send_signal(sent)
        out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == ("saved\n", code), err
    assert "Traceback" not in err
