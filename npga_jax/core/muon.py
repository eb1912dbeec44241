"""Which weights Muon trains by their singular directions."""

import jax
import optax

from npga_jax.core.types import Params

_LEAST_OUTPUTS = 16
"""Of a layer that is trained by its singular directions, not entry by entry."""


def axes_of_matrices(params: Params) -> Params:
    """What Muon is to orthogonalise: weights named w or *_w, but for narrow outputs.

    Muon (Jordan et al. 2024; `optax.contrib.muon`) makes steps of equal length along
    all singular directions of a matrix. Axes before the last two count networks side by
    side.

    Returns:
      `optax.contrib.MuonDimensionNumbers` for each of them; None, which is Adam, for
      the rest.
    """

    def axes(path, leaf):
        name = str(getattr(path[-1], "key", ""))
        is_matrix = name == "w" or name.endswith("_w")
        if not is_matrix or leaf.shape[-1] < _LEAST_OUTPUTS:
            return None
        return optax.contrib.MuonDimensionNumbers(
            reduction_axis=leaf.ndim - 2, output_axis=leaf.ndim - 1
        )

    return jax.tree_util.tree_map_with_path(axes, params)
