"""Finds products of matrices that a GPU or TPU would round."""

from collections.abc import Callable, Iterator
from typing import Any

import jax

_EXACT = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)


def inexact_products(fn: Callable[..., Any], *args: Any) -> list[str]:
    """The products in `fn(*args)` that are not asked for in full float32.

    Scripts ask for it everywhere (`runtime.configure`); here nobody does.
    """
    with jax.default_matmul_precision(None):
        jaxpr = jax.make_jaxpr(fn)(*args)
    products = [eqn for eqn in _equations(jaxpr.jaxpr) if _is_product(eqn)]
    assert products, "there is no product at all, so this would prove nothing"
    return [str(eqn) for eqn in products if eqn.params["precision"] != _EXACT]


def _is_product(eqn: Any) -> bool:
    return eqn.primitive.name in ("dot_general", "conv_general_dilated")


def _equations(jaxpr: Any) -> Iterator[Any]:
    for eqn in jaxpr.eqns:
        yield eqn
        for leaf in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(leaf, "jaxpr", leaf)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)
