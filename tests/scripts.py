"""Scripts as a user types them, without the seconds that a new process takes to start.

What only a process of its own can show (signals, imports, closed pipes) is started as
one by the tests that show it.
"""

import contextlib
import io
import runpy
import sys
from pathlib import Path
from typing import NamedTuple
from unittest import mock

ROOT = Path(__file__).parents[1]


class Result(NamedTuple):
    """Named as in `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def run_script(name: str, *arguments: str | Path, cwd: Path = ROOT) -> Result:
    """Runs a script of this repository in this process.

    What is no exit passes through: a user would see its stack trace.

    Args:
      name: from the repository's root, as "experiments/train.py".
      *arguments: what follows it on the command line.
      cwd: where it is typed.
    """
    path = ROOT / name
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with (
        mock.patch.object(sys, "argv", [str(path), *map(str, arguments)]),
        mock.patch.object(sys, "path", [str(path.parent), *sys.path]),
        # This process has its settings from conftest.py.
        mock.patch("npga_jax.core.runtime.configure"),
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as stop:
            assert stop.code is None or isinstance(stop.code, int), stop.code
            code = stop.code or 0
    return Result(code, out.getvalue(), err.getvalue())
