"""Which parts of a method are somebody's own: not what the settings alone give."""

import dataclasses
from functools import partial
from typing import Any

from npga_jax.avatar import Method
from npga_jax.training.building import default_method
from npga_jax.training.settings import TrainConfig


def own_parts(cfg: TrainConfig, method: Method) -> tuple[str, ...]:
    """Fields of a method that are not those of `default_method(cfg)`."""
    usual = default_method(cfg)
    names = (field.name for field in dataclasses.fields(Method))
    return tuple(x for x in names if not is_same(getattr(method, x), getattr(usual, x)))


def is_same(a: Any, b: Any) -> bool:
    """Whether two functions, or structs of functions, are made of the same parts."""
    if isinstance(a, partial) and isinstance(b, partial):
        return (
            is_same(a.func, b.func)
            and len(a.args) == len(b.args)
            and all(map(is_same, a.args, b.args))
            and a.keywords.keys() == b.keywords.keys()
            and all(is_same(a.keywords[k], b.keywords[k]) for k in a.keywords)
        )
    if type(a) is not type(b):
        return False
    if dataclasses.is_dataclass(a):
        fields = [f.name for f in dataclasses.fields(a)]
        return all(is_same(getattr(a, f), getattr(b, f)) for f in fields)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(is_same, a, b))
    return a is b or bool(a == b)
