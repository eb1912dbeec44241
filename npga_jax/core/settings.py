"""Settings as dataclasses that state each default and bound once, beside the field.

    steps: Annotated[int, Range(low=1)] = 8_000
    lpips_crop: Annotated[int, Range(low=32), Only("loss.lpips")] = 128

A number without a range is finite and at least 0.
"""

import dataclasses
import math
import numbers
import types
import typing
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from npga_jax.core.errors import InputError


class Range(NamedTuple):
    """What a number may be, or each number of a tuple."""

    low: float = 0
    high: float = math.inf
    is_open: bool = False
    """It must be more than `low`."""


class Only(NamedTuple):
    """The setting has an effect only where another one, named with dots, is on."""

    name: str
    values: tuple = ()
    """Values of the other at which this one has an effect; none: whatever is true."""


class Field(NamedTuple):
    """One setting, found in a tree of dataclasses."""

    name: str  # with dots
    value: Any
    range: Range
    conditions: tuple[Only, ...]


def walk(cfg: Any, prefix: str = "") -> Iterator[Field]:
    """All settings of a tree of dataclasses."""
    hints = typing.get_type_hints(type(cfg), include_extras=True)
    for field in dataclasses.fields(cfg):
        name, value = prefix + field.name, getattr(cfg, field.name)
        if dataclasses.is_dataclass(value):
            yield from walk(value, f"{name}.")
            continue
        marks = getattr(hints[field.name], "__metadata__", ())
        ranges = [m for m in marks if isinstance(m, Range)]
        yield Field(
            name,
            value,
            ranges[0] if ranges else Range(),
            tuple(m for m in marks if isinstance(m, Only)),
        )


def take_types(cfg: Any) -> None:
    """Text becomes a path, a list a tuple, in a settings object's `__post_init__`.

    From Python, `data_root="DATA"` is as good as on the command line, and what is
    written and read again is what it was.
    """
    hints = typing.get_type_hints(type(cfg))
    for field in dataclasses.fields(cfg):
        value = getattr(cfg, field.name)
        if isinstance(value, str) and Path in typing.get_args(hints[field.name]):
            object.__setattr__(cfg, field.name, Path(value))
        if isinstance(value, list):
            object.__setattr__(cfg, field.name, tuple(value))


def option(name: str) -> str:
    """A setting as the command line calls it."""
    return f"--{name.replace('_', '-')}"


def check_ranges(cfg: Any, group: str = "") -> None:
    """Refuses numbers that are out of their ranges.

    Args:
      group: what the command line puts before each name, as "tracking.".

    Raises:
      InputError: for the first of them.
    """
    for name, value, bounds, _ in walk(cfg, group):
        for number in value if isinstance(value, tuple | list) else (value,):
            _check_number(name, number, bounds)


def _check_number(name: str, value: Any, bounds: Range) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return
    number = float(value)
    low, high, is_open = bounds
    is_low = number <= low if is_open else number < low
    if not math.isfinite(number) or is_low or number > high:
        kind = "whole" if isinstance(value, numbers.Integral) else "finite"
        least = f"more than {low}" if is_open else f"at least {low}"
        most = "" if math.isinf(high) else f" and at most {high}"
        raise InputError(
            f"{option(name)} {value}: expected a {kind} number that is {least}{most}."
        )


def check_effects(cfg: Any, *usual: Any, left_out: Collection[str] = ()) -> None:
    """Refuses settings that would do nothing.

    Args:
      usual: settings that the user may have begun with; what is as in one of them was
        not chosen.
      left_out: settings that say nothing of what others do, by name or by the group
        that they are in.

    Raises:
      InputError: for the first that was chosen, and has no effect beside the others.
    """
    values = {field.name: field.value for field in walk(cfg)}
    begun_with = [{f.name: f.value for f in walk(other)} for other in usual]
    for name, value, _, conditions in walk(cfg):
        if any(value == before[name] for before in begun_with):
            continue
        for condition in conditions:
            group = condition.name.partition(".")[0]
            if condition.name in left_out or group in left_out:
                continue
            other = values[condition.name]
            is_on = other in condition.values if condition.values else bool(other)
            if not is_on:
                wanted = " or ".join(map(str, condition.values)) or "on"
                raise InputError(
                    f"{option(name)} {value} has no effect: it needs "
                    f"{option(condition.name)} to be {wanted}, which is {other}. "
                    "Leave one of them out."
                )


def from_json(kind: Any, value: Any, name: str = "") -> Any:
    """Settings from what `dataclasses.asdict` and JSON made of them.

    Raises:
      ValueError: a setting is missing, is of another type, or is not known.
    """
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = {
            f.name: f"{name}.{f.name}".strip(".") for f in dataclasses.fields(kind)
        }
        for field in names:
            if field not in value:
                raise ValueError(f"there is no '{names[field]}' in it")
        unknown = sorted(value.keys() - names.keys())
        if unknown:
            raise ValueError(f"'{name}{'.' if name else ''}{unknown[0]}' is not known")
        return kind(**{k: from_json(hints[k], v, names[k]) for k, v in value.items()})
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is None:
        if type(None) not in options:
            raise ValueError(f"'{name}' is null")
        return None
    if typing.get_origin(kind) is tuple and isinstance(value, list):
        element = typing.get_args(kind)[0]
        return tuple(from_json(element, v, name) for v in value)
    if Path in options and isinstance(value, str):
        return Path(value)
    if typing.get_origin(kind) is Literal:
        is_right, options = value in typing.get_args(kind), typing.get_args(kind)
    else:
        # A whole number is a number too, but True is none.
        is_right = type(value) in options or (type(value) is int and float in options)
    if not is_right:
        expected = " or ".join(getattr(o, "__name__", str(o)) for o in options)
        raise ValueError(f"'{name}' is {value!r}; expected {expected}")
    return value


def differences(old: Any, new: Any, free: Collection[str]) -> list[str]:
    """Sentences on the settings that differ, but for those that may."""
    after = {field.name: field.value for field in walk(new)}
    return [
        f"{name} was {value}, is now {after[name]}"
        for name, value, *_ in walk(old)
        if name not in free and value != after[name]
    ]
