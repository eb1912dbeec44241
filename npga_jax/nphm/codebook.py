"""The table of codes that a prior is trained with, one row a head or a scan."""

import jax
import jax.numpy as jnp

_TORCH_EPSILON = 1e-7


def lookup_codes(
    codebook: jax.Array, idx: jax.Array, *, max_norm: float = 1.0
) -> tuple[jax.Array, jax.Array]:
    """Rows of a codebook; those that are too long are shortened, in the codebook too.

    Source: torch.nn.functional.embedding with `max_norm`, which MonoNPHM trains with.

    Args:
      codebook: [n, D].
      idx: [...] int, in [0, n); may repeat.
      max_norm: length that rows are shortened to.

    Returns:
      Values [..., D], and the codebook [n, D] with the selected rows shortened. As in
      torch, the others stay as they are until they are looked up.
    """
    codebook = jnp.asarray(codebook)
    rows = codebook[idx]
    norm = jnp.linalg.norm(rows, axis=-1, keepdims=True)
    scale = jnp.where(norm > max_norm, max_norm / (norm + _TORCH_EPSILON), 1.0)
    values = rows * scale
    return values, codebook.at[idx].set(values)
