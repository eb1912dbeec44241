"""Pickles of others, read by an unpickler that can build what is listed and no more."""

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

from npga_jax.core.errors import InputError

Allowed = Mapping[tuple[str, str], Any]
"""What stands for each global name that a pickle may ask for, (module, name)."""


def load_restricted(
    data: bytes,
    name: str,
    allowed: Allowed,
    *,
    persistent_load: Callable[[Any], Any] | None = None,
) -> Any:
    """Unpickles dicts, lists, tuples, numbers, text and what is allowed.

    Args:
      data: the pickle.
      name: what it is of, as the beginning of a message.
      allowed: each must be harmless with any arguments: a pickle may call it.
      persistent_load: what stands for a reference to what is stored elsewhere.

    Raises:
      InputError: the pickle asks for another name (which could run code), or is
        damaged.
    """
    try:
        _check_memo(data)
        return _Unpickler(data, allowed, persistent_load).load()
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except Exception as error:  # A damaged pickle can raise nearly anything.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{name}: not a readable pickle ({reason}); it is cut short, damaged or "
            "not what it should be. Copy or download it again."
        ) from error


class _Unpickler(pickle.Unpickler):
    def __init__(
        self,
        data: bytes,
        allowed: Allowed,
        persistent_load: Callable[[Any], Any] | None,
    ):
        super().__init__(io.BytesIO(data))
        self._allowed = allowed
        self._persistent_load = persistent_load

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module, name]
        except KeyError:
            raise InputError(
                f"the pickle asks for {f'{module}.{name}'[:80]!r}, which is refused; "
                "only plain values and arrays of numbers are read."
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent_load is None:
            raise InputError("the pickle refers to what is stored elsewhere.")
        return self._persistent_load(pid)


def _check_memo(data: bytes) -> None:
    """Refuses places of the memo that are no pickler's: they ask for gigabytes."""
    for opcode, argument, _ in pickletools.genops(data):
        if argument is None or not opcode.name.endswith("PUT"):
            continue
        if argument > len(data):
            raise ValueError(f"place {argument} of its memo")
