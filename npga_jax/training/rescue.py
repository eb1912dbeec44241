"""What a run that stops at a bad step leaves to be looked into: the step's batch."""

from pathlib import Path

import numpy as np

from npga_jax.core import InputError, atomic_write
from npga_jax.data import Capture, Timestep, load_batch


def dump_batch(
    path: Path, capture: Capture, timestep: Timestep, cameras: tuple[str, ...]
) -> str:
    """Writes a batch, whole or not at all; comes after all that must not be lost.

    Returns:
      What to do with it, as the end of a message: a batch that cannot be read or
      written is no reason to hide why the run stops.
    """
    try:
        batch = load_batch(capture, timestep, cameras)
        with atomic_write(path) as file:
            np.savez(file, **batch._asdict())
    except (InputError, OSError) as error:
        return f"Its batch could not be kept: {error}"
    return f"Look into its batch, {path}."
