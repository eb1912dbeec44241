"""A researcher's own method: a Python file with `def method(cfg) -> Method`."""

import sys
import traceback
import types
from pathlib import Path

from npga_jax.avatar import Method
from npga_jax.core import InputError
from npga_jax.training.building import default_method
from npga_jax.training.settings import TrainConfig

METHOD_FILE = "method.py"
"""The copy of it in a run's folder."""


def read_method(file: Path) -> bytes:
    """What is in a file with a method, to be run and kept as it is now.

    Raises:
      InputError: it is not there.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(
            f"--method {file}: there is no such file, or it cannot be read "
            f"({error.strerror}); give a Python file with `def method(cfg) -> Method` "
            "(docs/extending.md)."
        ) from error


def build_method(
    cfg: TrainConfig, file: Path | None = None, text: bytes | None = None
) -> Method:
    """The method of a run: of a file, or else of the settings alone.

    Args:
      cfg: with `forward.source` decided.
      file: what counts instead of `cfg.method`.
      text: what is in the file, where that has been read.

    Raises:
      InputError: the file is not there, fails, or gives no `Method`.
    """
    file = file or cfg.method
    if file is None:
        return default_method(cfg)
    text = read_method(file) if text is None else text
    try:
        module = types.ModuleType("npga_jax_own_method")
        module.__file__ = str(file)
        # Classes of the file are looked up by the name of their module.
        sys.modules[module.__name__] = module
        exec(compile(text, str(file), "exec"), module.__dict__)
        made = module.method(cfg)
    except Exception as error:
        if isinstance(error, InputError):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(file)]
        where = f", line {lines[-1]}" if lines else ""
        raise InputError(
            f"--method {file}{where}: {type(error).__name__}: {error}. It should "
            "define `def method(cfg) -> Method` (docs/extending.md)."
        ) from error
    if not isinstance(made, Method):
        raise InputError(
            f"--method {file}: method(cfg) returned {type(made).__name__}; expected a "
            "Method, for instance npga_jax.default_method(cfg) with a field replaced."
        )
    return made
