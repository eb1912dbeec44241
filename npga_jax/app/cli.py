"""Runs a script's `main` so that a user's mistakes read like sentences."""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from npga_jax.core import InputError, Stopped

Config = TypeVar("Config")

_EXIT_INPUT_ERROR = 2  # The same that the command-line parser exits with.
_EXIT_INTERRUPTED = 130
_EXIT_BROKEN_PIPE = 141


def run(
    main: Callable[[Config], None],
    config_type: type[Config],
    default: Config | Callable[[], Config] | None = None,
    argv: Sequence[str] | None = None,
) -> None:
    """Parses the command line and calls `main`; exits with a code if that fails.

    Args:
      main: Takes the parsed settings.
      config_type: A dataclass: its fields are the options.
      default: Defaults other than the dataclass's own, or a function that finds them.
      argv: Arguments; None for those of the process.

    Raises:
      SystemExit: 2 for what the user can mend and for lack of memory, 130 for Ctrl-C,
        141 if whoever read our output has gone. A run that SIGTERM ended, and that
        has saved, returns like one that is done. Any other exception is a bug and
        passes through.
    """
    code = 0
    try:
        usual = default() if callable(default) else default
        options: Any = {} if usual is None else {"default": usual}
        main(tyro.cli(config_type, args=argv, **options))
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        code = _EXIT_INPUT_ERROR
    except Stopped:
        print("stopped", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = _EXIT_INTERRUPTED
    except BrokenPipeError:
        # Python flushes at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _EXIT_BROKEN_PIPE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        where = f" writing {error.filename}" if error.filename else ""
        print(
            f"error: no space left on device{where}. Free some, or choose other "
            "folders for output and cache.",
            file=sys.stderr,
        )
        code = _EXIT_INPUT_ERROR
    except Exception as error:
        # Without JAX, which is slow to import, nothing has computed yet.
        if "jax" not in sys.modules:
            raise
        from npga_jax.core import is_lack_of_memory

        if not is_lack_of_memory(error):
            raise
        print(
            "error: out of memory. Ask for less: smaller images, fewer Gaussians, "
            "views or points.",
            file=sys.stderr,
        )
        code = _EXIT_INPUT_ERROR
    if code:
        sys.exit(code)
