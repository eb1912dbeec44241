"""Which parts of a method are somebody's own: not what the settings alone give."""

import dataclasses
from functools import partial
from typing import Any

import jax

from npga_jax.avatar import CodeSpace, Forward, Method, Network
from npga_jax.training.building import default_method
from npga_jax.training.settings import TrainConfig


def own_parts(cfg: TrainConfig, method: Method) -> tuple[str, ...]:
    """Fields of a method that are not those of `default_method(cfg)`."""
    usual = default_method(cfg)
    names = (field.name for field in dataclasses.fields(Method))
    return tuple(x for x in names if not is_same(getattr(method, x), getattr(usual, x)))


def parts_to_render(
    cfg: TrainConfig, method: Method, codes: CodeSpace
) -> tuple[str, ...]:
    """Fields of a method without which its avatar cannot be rendered from settings.

    What weights start with does not count, where they have the usual shapes.

    Args:
      cfg: settings of the run.
      codes: that drive the avatar; their names alone count.
    """
    usual = default_method(cfg)
    num_features = cfg.gaussians.feature_dim

    def renders_alike(name: str) -> bool:
        a, b = getattr(method, name), getattr(usual, name)
        if a is None or b is None or name == "rasterize_fn":
            return is_same(a, b)
        if not is_same(a.apply, b.apply):
            return False
        return is_same(a.init, b.init) or _shapes(a, codes, num_features) == _shapes(
            b, codes, num_features
        )

    names = ("forward", "detail", "screen", "rasterize_fn")
    return tuple(name for name in names if not renders_alike(name))


def _shapes(part: Forward | Network, codes: CodeSpace, num_features: int) -> Any:
    """Structure of the weights, with shapes and types."""
    return jax.eval_shape(lambda: part.init(jax.random.key(0), codes, num_features))


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
        fields = [f.name for f in dataclasses.fields(a) if f.compare]
        return all(is_same(getattr(a, f), getattr(b, f)) for f in fields)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(is_same, a, b))
    return a is b or bool(a == b)
