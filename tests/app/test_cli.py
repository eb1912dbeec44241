import dataclasses
import errno
import subprocess
import sys

import jax
import pytest

from npga_jax.app import cli
from npga_jax.core.errors import InputError, Stopped


@dataclasses.dataclass(frozen=True)
class Settings:
    """A script."""

    steps: int = 3
    """How many."""


def raising(error: BaseException):
    def main(_: Settings) -> None:
        raise error

    return main


def test_settings_come_from_the_command_line_and_the_default():
    seen = []
    cli.run(seen.append, Settings, argv=["--steps", "5"])
    cli.run(seen.append, Settings, Settings(steps=7), argv=[])
    assert [s.steps for s in seen] == [5, 7]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("no folder X."), 2, "error: no folder X.\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (OSError(errno.ENOSPC, "full", "/a/b"), 2, "no space left on device writing"),
    ],
)
def test_expected_ends_are_sentences(capsys, error, code, message):
    with pytest.raises(SystemExit) as end:
        cli.run(raising(error), Settings, argv=[])
    assert end.value.code == code
    assert message in capsys.readouterr().err


def test_a_run_that_sigterm_ended_and_that_has_saved_is_no_failure(capsys):
    cli.run(raising(Stopped()), Settings, argv=[])
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize(
    "error",
    [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")],
)
def test_lack_of_memory_is_a_sentence(capsys, error):
    with pytest.raises(SystemExit) as end:
        cli.run(raising(error), Settings, argv=[])
    assert end.value.code == 2
    assert "out of memory. Ask for less" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("bug"), OSError(errno.EIO, "bug")])
def test_bugs_pass_through(error):
    with pytest.raises(type(error), match="bug"):
        cli.run(raising(error), Settings, argv=[])


def test_usage_errors_exit_with_2():
    with pytest.raises(SystemExit) as end:
        cli.run(print, Settings, argv=["--stepz", "5"])
    assert end.value.code == 2


def test_reader_that_goes_away_is_no_stack_trace():
    script = (
        "from npga_jax.app import cli; from npga_jax.training import TrainConfig\n"
        "cli.run(lambda _: print('x' * 1_000_000), TrainConfig, argv=[])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    message = process.stderr.read()
    assert process.wait() == 141
    assert message == b""


def test_command_line_does_not_wait_for_jax():
    script = (
        "import sys; from npga_jax.app import cli; import npga_jax.data\n"
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
