"""The bones: what carries eyeballs, teeth and tongue.

A head model is a skin. Of what lies under it, it says nothing, and F, which follows the
skin, drags teeth along with the nearest lip. Upper teeth and eyeballs stay where the
skull is; lower teeth and tongue go with the jaw, whose motion F itself shows by what it
does to the chin. GaussianAvatars (Qian et al. 2024) adds teeth to FLAME in the same
way.
"""

import jax
import jax.numpy as jnp

SKULL, JAW = 0, 1
"""Columns of `Gaussians.bindings`. The head frame is the skull's."""


def bind(
    means: jax.Array,  # [N, 3] canonical
    moved: jax.Array,  # [N, 3] where the skin takes them
    bindings: jax.Array,  # [N, 2] shares of skull and jaw; the rest is skin
    jaw: tuple[jax.Array, jax.Array],  # rotation [3, 3] and translation [3]
) -> jax.Array:
    """Centres as skin, skull and jaw carry them: [N, 3]."""
    rotation, translation = jaw
    by_jaw = jnp.matmul(means, rotation.T, precision=jax.lax.Precision.HIGHEST)
    return (
        moved
        + bindings[:, SKULL, None] * (means - moved)
        + bindings[:, JAW, None] * (by_jaw + translation - moved)
    )
