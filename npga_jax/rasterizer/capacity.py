"""Room for intersections: static, with headroom, counted where it does not do."""

from npga_jax.core import InputError

ISECTS_HEADROOM = 1.5
ISECTS_GRANULE = 16_384
MAX_ISECTS = 2**31 - 1


def padded_capacity(num_isects: int) -> int:
    """A capacity with headroom for this many intersections.

    Raises:
      InputError: if indices of 32 bits cannot count that many.
    """
    granules = -(-int(num_isects * ISECTS_HEADROOM) // ISECTS_GRANULE)
    capacity = max(granules, 1) * ISECTS_GRANULE
    if capacity > MAX_ISECTS:
        raise InputError(
            f"an image wants {num_isects} or more tile intersections, which is more "
            f"than {int(MAX_ISECTS / ISECTS_HEADROOM)}: the Gaussians are far too "
            "large for it. Lower --capture.width, --gaussians.init-scale or the image "
            "size."
        )
    return capacity
