"""The training state: all that a run needs to go on, and what a checkpoint holds."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from npga_jax.core import AvatarParams, Graph
from npga_jax.training.laplacian import empty_graph
from npga_jax.training.settings import TrainConfig


class TrainState(NamedTuple):
    """All that a run needs to go on: it is what a checkpoint holds."""

    step: jax.Array  # [] int32, steps taken
    params: AvatarParams
    opt_state: Any  # of the optimiser; Adam's moments come first
    alive: jax.Array  # [N] bool, slots in use
    graph: Graph  # neighbours, as of the last change of the cloud
    halted: jax.Array  # [] bool, the last step was refused: so is all that follows
    average: AvatarParams  # of the weights, over the last steps; zeros before those


def init_train_state(
    params: AvatarParams,
    alive: jax.Array,
    optimizer: optax.GradientTransformation,
    graph: Graph | None = None,
) -> TrainState:
    """State before the first step; without a graph, one that has no neighbours."""
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        alive=alive,
        graph=empty_graph(alive.shape[0]) if graph is None else graph,
        halted=jnp.zeros((), bool),
        average=jax.tree.map(jnp.zeros_like, params),
    )
    # A weak type would make the second step compile anew.
    return jax.tree.map(lambda x: jnp.asarray(x, x.dtype), state)


def averaged_after(cfg: TrainConfig) -> int:
    """Steps after which weights are averaged; all of them where none are."""
    return math.ceil(cfg.average_from * cfg.steps)


def average_in(state: TrainState, count: jax.Array) -> TrainState:
    """Takes the weights into their average, as the `count`-th; [] float, from 1.

    The cloud may not change its slots between the first and the last
    (`refinement.check_averaging`). A halted state stays as it is.
    """
    mean = jax.tree.map(
        lambda m, x: jnp.where(state.halted, m, m + (x - m) / count),
        state.average,
        state.params,
    )
    return state._replace(average=mean)
