"""Everything that knows about devices: views are spread over them, the state is not.

The gradient is averaged by hand inside the step (`axis_name`). `check_vma=False` is
essential: with the check on, JAX already sums the gradient of replicated inputs, and
the mean that follows would silently be D times too large.
"""

from collections.abc import Callable
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from npga_jax.core import Batch, InputError

AXIS_NAME = "devices"

_COMMON = ("world_from_head", "expr")
BATCH_SPECS: Any = Batch(
    *cast(
        Any,
        (
            PartitionSpec() if name in _COMMON else PartitionSpec(AXIS_NAME)
            for name in Batch._fields
        ),
    )
)
"""Views over devices; what is common to a timestep everywhere."""


def make_mesh(num_devices: int = 0, views_per_step: int = 0) -> Mesh:
    """A mesh of the first local devices.

    Args:
      num_devices: how many; 0 for as many as share the views evenly.
      views_per_step: views to share; 0: any number of devices will do.

    Raises:
      InputError: if there are fewer, or the views cannot be shared evenly.
    """
    devices = jax.local_devices()
    if num_devices > len(devices):
        raise InputError(
            f"--num-devices {num_devices}: this machine has {len(devices)} "
            f"{devices[0].platform} device(s); pass at most that, or 0 for all that "
            "share --views-per-step evenly."
        )
    count = num_devices or largest_share(views_per_step, len(devices))
    if views_per_step % count:
        raise InputError(
            f"--views-per-step {views_per_step} cannot be shared among {count} "
            f"devices; pass a multiple of {count}, or --num-devices 0."
        )
    return Mesh(np.array(devices[:count]), (AXIS_NAME,))


def largest_share(views: int, devices: int) -> int:
    """The largest number of devices that share the views evenly; of no views, all."""
    return max(d for d in range(1, devices + 1) if views % d == 0)


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of arrays that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def shard_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Puts a batch onto the devices, its views spread over them."""
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), BATCH_SPECS)
    return jax.device_put(batch, shardings)


def data_parallel(step_fn: Callable, mesh: Mesh) -> Any:
    """Compiles `step_fn(state, batch) -> (state, metrics)` for all devices of a mesh.

    `step_fn` must average its gradient and metrics over AXIS_NAME, so that every
    device computes the same new state. The old state's memory is reused.
    """
    mapped = jax.shard_map(
        step_fn,
        mesh=mesh,
        in_specs=(PartitionSpec(), BATCH_SPECS),
        out_specs=PartitionSpec(),
        check_vma=False,
    )
    return jax.jit(mapped, donate_argnums=0)
