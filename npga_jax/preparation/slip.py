"""How far a tracked head has slipped along its own surface, by where eyes are seen.

Points of a cloud hold a head across its surface; along it they hold little, and where
stereo errs in one direction all frames slip alike. Eyes do not look like skin: the
place where the template's eyes differ most from what is around them is theirs.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage

from npga_jax.data import Camera, segmentation
from npga_jax.io import visible_faces
from npga_jax.preparation.labels import PosedHead, Tint

ndimage: Any = scipy.ndimage  # Types of what it returns are not known.

_REACH, _SPACING = 0.005, 0.0005
"""Metres to each side in which the slip is sought, and between those tried."""
_RIM, _AROUND = 1, 4
"""Pixels beside an eye that are not looked at, and up to which are its surroundings."""
_MOST_UNLIKE = 25.0
"""Squared deviations from skin beyond which a pixel counts no more."""
_LEAST_GAIN = 0.5
"""Squared deviations by which the found place must be better than none."""
_FEWEST_PIXELS = 40


class Sight(NamedTuple):
    """What one camera sees of a frame."""

    head: PosedHead
    image: np.ndarray  # [H, W, 3] uint8
    camera: Camera


def find_slip(sights: Sequence[Sight], skin: Tint) -> np.ndarray:
    """The slip that all views together tell.

    Args:
      sights: of one person.
      skin: the person's.

    Returns:
      [2] metres to the head's left and up by which the template must be moved; zeros
      where eyes are not seen, or nothing stands out within reach.
    """
    steps = np.arange(-_REACH, _REACH + _SPACING / 2, _SPACING)
    across, up = np.meshgrid(steps, steps, indexing="ij")
    tried = np.stack([across.ravel(), up.ravel()], axis=-1)
    total, weight = np.zeros(len(tried)), 0.0
    for sight in sights:
        found = _contrast(sight, skin, tried)
        if found is not None:
            total += found[0] * found[1]
            weight += found[1]
    if weight == 0:
        return np.zeros(2)
    score = (total / weight).reshape(across.shape)
    row, column = np.unravel_index(score.argmax(), score.shape)
    middle = len(steps) // 2
    is_inside = 0 < row < len(steps) - 1 and 0 < column < len(steps) - 1
    if not is_inside or score[row, column] < score[middle, middle] + _LEAST_GAIN:
        return np.zeros(2)
    return np.array([steps[row], steps[column]])


def shifted(head: PosedHead, slip: np.ndarray) -> PosedHead:
    """A head moved by [2] metres to its left and up."""
    world_from_head = np.linalg.inv(head.head_from_world)[:3, :3]
    scale = np.cbrt(np.linalg.det(world_from_head))
    moved = world_from_head[:, :2] @ slip / scale
    return head._replace(vertices=head.vertices + moved)


def _contrast(
    sight: Sight, skin: Tint, tried: np.ndarray
) -> tuple[np.ndarray, float] | None:
    """How much less like skin eyes are than what is around, at each of [N, 2] slips.

    Returns:
      [N], and the number of pixels; None where no eye is seen.
    """
    camera, head = sight.camera, sight.head
    height, width = sight.image.shape[:2]
    matrix = camera.world2cam.astype(np.float64)
    face, _ = visible_faces(
        head.vertices,
        head.faces,
        viewmat=matrix,
        K=camera.K,
        width=width,
        height=height,
    )
    is_eye = (face >= 0) & np.isin(head.labels[face], segmentation.EYES)
    if is_eye.sum() < _FEWEST_PIXELS:
        return None
    near = ndimage.binary_dilation(is_eye, iterations=_RIM)
    ring = ndimage.binary_dilation(is_eye, iterations=_AROUND) & ~near & (face >= 0)
    unlike = skin.squared(sight.image.reshape(-1, 3) / 255).reshape(height, width)
    unlike = np.minimum(unlike, _MOST_UNLIKE)
    # Small moves of the head are moves of its image.
    axes = np.linalg.inv(head.head_from_world)[:3, :2]
    axes = axes / np.linalg.norm(axes, axis=0)
    eyes = np.isin(head.labels, segmentation.EYES)
    middle = head.vertices[head.faces[eyes]].mean(axis=(0, 1))
    place = matrix[:3, :3] @ middle + matrix[:3, 3]
    moves = tried @ (matrix[:3, :3] @ axes).T
    pixels = (moves[:, :2] - moves[:, 2:] * place[:2] / place[2]) / place[2]
    pixels = pixels * np.array([camera.K[0, 0], camera.K[1, 1]])

    def mean_at(mask: np.ndarray) -> np.ndarray:
        row, column = np.nonzero(mask)
        at = [row + pixels[:, 1:], column + pixels[:, :1]]
        return ndimage.map_coordinates(unlike, at, order=1, mode="nearest").mean(axis=1)

    return mean_at(is_eye) - mean_at(ring), float(is_eye.sum())
