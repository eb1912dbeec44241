"""Sizes that the benchmarks take: what is beyond them is a slip of the finger."""

from npga_jax.core import InputError

_LARGEST = {
    "num_gaussians": 2**24,
    "width": 2**14,
    "height": 2**14,
    "channels": 256,
    "views": 256,
    "num_devices": 64,
    "points": 2**24,
    "twin_points": 2**20,
    "repeats": 10_000,
    "max_isects": 2**31 - 1,
}
_MAY_BE_ZERO = ("twin_points", "max_isects")


def check_sizes(**sizes: int | None) -> None:
    """Raises InputError for the first that is too small or too large; None is right."""
    for name, size in sizes.items():
        smallest, largest = int(name not in _MAY_BE_ZERO), _LARGEST[name]
        if size is not None and not smallest <= size <= largest:
            raise InputError(
                f"--{name.replace('_', '-')} {size}: expected a whole number, "
                f"{smallest} or more, and at most {largest}."
            )
