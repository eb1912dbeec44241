"""Compositing by Pallas kernels for TPUs and, through Triton, for NVIDIA's GPUs.

Both equal their twin, `compositing`, in JAX's interpreter. Those for GPUs equal it on
an H200, too, and take a fiftieth of its time or less (docs/notes/performance.md). Those
for TPUs compile for TPUs that are not there; THEY HAVE NOT RUN ON ONE.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from npga_jax.rasterizer import compositing
from npga_jax.rasterizer.compositing import Blocking
from npga_jax.rasterizer.pallas import layout, tpu
from npga_jax.rasterizer.tiles import TileLists

try:
    import jax.experimental.pallas.triton
except ImportError:  # JAX 0.11 says that a later one will not have it.
    triton = None
else:
    from npga_jax.rasterizer.pallas import triton


class Driver(NamedTuple):
    """The kernels of a kind of hardware, and the sizes that it wants."""

    forward: Callable
    backward: Callable
    pad_channels: Callable[[int], int]
    chunk: int  # Gaussians of a chunk


TPU = Driver(tpu.forward, tpu.backward, tpu.pad_channels, tpu.CHUNK)
TRITON = triton and Driver(
    triton.forward, triton.backward, triton.pad_channels, triton.CHUNK
)

PROVEN = {"cuda": TRITON} if TRITON else {}
"""Kernels that have run on hardware, by platform as in `jax.lax.platform_dependent`."""
DRIVERS = {"tpu": TPU, **PROVEN}
"""All of them."""

WITHOUT_TRITON = (
    f"JAX {jax.__version__} has no Pallas for Triton; install one that has: "
    'pip install "jax[cuda13]==0.10.2"'
)
"""What to say where there is no `TRITON`."""

_LEAST_CAPABILITY = 8.0
"""Compute capability of the oldest GPUs that Triton compiles for."""


class _Inputs(NamedTuple):
    means2d: jax.Array  # [N, 2]
    conics: jax.Array  # [N, 3]
    opacities: jax.Array  # [N]
    colors: jax.Array  # [N, F]


class _Static(NamedTuple):
    width: int
    height: int
    blocking: Blocking
    drivers: tuple[tuple[str, Driver], ...]  # by platform; for all where it is ""
    interpret: bool

    @property
    def tiling(self) -> dict:
        size = self.blocking.tile_size
        return {
            "tile_size": size,
            "tile_width": -(-self.width // size),
            "interpret": self.interpret,
        }


def why_not(tile_size: int) -> str:
    """Why `PROVEN` kernels do not serve on this process's GPUs; empty if they do.

    They must not be asked for without such a GPU: the gradient of `rasterize_to_pixels`
    runs the twin's forward pass once more where there is no driver.
    """
    if not PROVEN:
        return WITHOUT_TRITON
    capabilities = compute_capabilities()
    if not capabilities:
        return "the kernels are for NVIDIA's GPUs only"
    if min(capabilities) < _LEAST_CAPABILITY:
        return (
            f"a GPU has compute capability {min(capabilities)}, and the kernels need "
            f"{_LEAST_CAPABILITY} or more"
        )
    if not _is_power_of_two(tile_size):
        return f"tiles of {tile_size} pixels; the kernels take powers of two"
    return ""


def compute_capabilities() -> list[float]:
    """Of the NVIDIA GPUs of this process."""
    # "8.0", or what other vendors say.
    found = (getattr(d, "compute_capability", None) for d in jax.local_devices())
    return [float(v) for v in found if v and v.replace(".", "", 1).isdigit()]


def _is_power_of_two(size: int) -> bool:
    return size > 0 and size & (size - 1) == 0


def _make_table(inputs, driver):
    return layout.make_table(
        *inputs, num_channels=driver.pad_channels(inputs.colors.shape[1] + 1)
    )


def _forward_kernels(inputs, lists, *, driver, static):
    chunks = layout.make_chunks(lists, inputs.colors.shape[0], driver.chunk)
    rows = layout.gather_columns(_make_table(inputs, driver), chunks.ids)
    values = driver.forward(rows, chunks, **static.tiling)
    num_channels = inputs.colors.shape[1]
    image = layout.from_tiles(
        values[:, : num_channels + 1],
        static.width,
        static.height,
        static.blocking.tile_size,
    )
    return image[..., :-1], 1.0 - image[..., -1]


def _backward_kernels(inputs, lists, results, cotangents, *, driver, static):
    num_gaussians, num_channels = inputs.colors.shape
    chunks = layout.make_chunks(lists, num_gaussians, driver.chunk)
    table, to_inputs = jax.vjp(partial(_make_table, driver=driver), inputs)
    (image, transmittance), (grad_image, grad_t) = results, cotangents
    behind = jnp.sum(image * grad_image, axis=-1) + transmittance * grad_t
    size = static.blocking.tile_size
    padding = table.shape[0] - layout.GEOMETRY_ROWS - num_channels
    grads = layout.to_tiles(grad_image, size)
    columns = driver.backward(
        layout.gather_columns(table, chunks.ids),
        chunks,
        jnp.pad(grads, ((0, 0), (0, padding), (0, 0))),
        layout.to_tiles(behind[..., None], size)[:, 0],
        **static.tiling,
    )
    return to_inputs(layout.add_columns(columns, chunks.ids, num_gaussians))[0]


def _forward_pure(inputs, lists, *, static):
    return compositing.rasterize_to_pixels(
        inputs.means2d,
        inputs.conics,
        inputs.opacities,
        inputs.colors,
        lists,
        width=static.width,
        height=static.height,
        blocking=static.blocking,
    )


def _backward_pure(inputs, lists, results, cotangents, *, static):
    del results
    _, vjp = jax.vjp(partial(_forward_pure, lists=lists, static=static), inputs)
    return vjp(cotangents)[0]


def _by_platform(kernels, pure, static, *args):
    by_platform = {
        platform: partial(kernels, driver=driver, static=static)
        for platform, driver in static.drivers
    }
    if "" in by_platform:
        return by_platform[""](*args)
    return jax.lax.platform_dependent(
        *args, **by_platform, default=partial(pure, static=static)
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _composite(inputs, lists, static):
    return _composite_fwd(inputs, lists, static)[0]


def _composite_fwd(inputs, lists, static):
    results = _by_platform(_forward_kernels, _forward_pure, static, inputs, lists)
    return results, (inputs, lists, results)


def _composite_bwd(static, residuals, cotangents):
    gradients = _by_platform(
        _backward_kernels, _backward_pure, static, *residuals, cotangents
    )
    return gradients, None


_composite.defvjp(_composite_fwd, _composite_bwd)


def rasterize_to_pixels(
    means2d: jax.Array,  # [N, 2] pixels
    conics: jax.Array,  # [N, 3]
    opacities: jax.Array,  # [N]
    colors: jax.Array,  # [N, F]
    lists: TileLists,
    *,
    width: int,
    height: int,
    blocking: Blocking,
    drivers: Mapping[str, Driver] | Driver = DRIVERS,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """`compositing.rasterize_to_pixels` by kernels.

    Args:
      blocking: only `tile_size` has a meaning here: a power of two.
      drivers: by the platform which the program is compiled for; others get the twin.
        Or one for all.
      interpret: runs the one driver in JAX's interpreter.

    Returns:
      colors [H, W, F] without background, and the transmittance [H, W] that is left.

    Raises:
      ValueError: the tiles' size is no power of two, there is not one driver to
        interpret, or this JAX has none for Triton.
    """
    if drivers is None:
        raise ValueError(f"There is no such driver: {WITHOUT_TRITON}.")
    if interpret and not isinstance(drivers, Driver):
        raise ValueError(
            "interpret=True needs one driver, pallas.TPU or pallas.TRITON."
        )
    size = blocking.tile_size
    if not _is_power_of_two(size):
        raise ValueError(f"tile_size is {size}; the kernels need a power of two.")
    if isinstance(drivers, Driver):
        drivers = {"": drivers}
    static = _Static(width, height, blocking, tuple(drivers.items()), interpret)
    inputs = _Inputs(means2d, conics, opacities, colors)
    return _composite(inputs, lists, static)
