"""What a look through a capture finds: sentences for people."""

import dataclasses
from collections.abc import Callable, Collection
from typing import TypeVar

from npga_jax.core import InputError

T = TypeVar("T")


@dataclasses.dataclass(eq=False, kw_only=True)
class Findings:
    """Sentences for people: what is only worth knowing, and what must be mended."""

    notes: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)

    def attempt(self, function: Callable[..., T], *args: object) -> T | None:
        """Calls a function; an InputError becomes a problem, and the result None."""
        try:
            return function(*args)
        except InputError as error:
            self.problems.append(str(error))
            return None


def count_things(things: Collection[object], noun: str) -> str:
    """'1 camera', '2 cameras'."""
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"
