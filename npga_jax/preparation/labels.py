"""Label maps from the tracked head, the mattes and the colours of skin and hair.

The head model's template says where face, eyes and mouth are. Hair and torso it does
not have: beside it, points of the cloud tell them apart; on it, colours do.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage
from scipy.spatial import KDTree

from npga_jax.data import Camera, PointCloud, segmentation, visible_points
from npga_jax.io import visible_faces
from npga_jax.nphm import METRES_PER_UNIT
from npga_jax.tracking import HeadTemplate, fill_openings

ndimage: Any = scipy.ndimage  # Types of what it returns are not known.

_THROAT = -0.45
"""Height, NPHM units, below which what is beside the head is the torso."""
_BESIDE = 0.04
"""Metres from the head beyond which a point is of something else."""
_CELLS = 70
"""Across an image, in which points vote."""
_REACH = 4.0
"""Cells over which votes reach."""
_RIM_PIXELS = 2
"""Beside the template's face that are still of it."""
_HAIRLINE = ((-1.0, 4.0), (0.0, 1.0), (0.1, -2.0), (0.2, -6.0))
"""NPHM units from the scalp, and the logit of being hair there; -1 on the scalp."""
_BALD = 0.6
"""Share of points on the scalp that look like skin, from which on there is no hair."""
_LIKE_SKIN = 3.0
"""Deviations of a colour from skin's."""
_SPREAD = 0.02
"""Least deviation of a colour, of 1."""
_PATCH = 5
"""Pixels across, whose colours are judged together."""
_MOST_LOGIT = 8.0
_FEWEST_SAMPLES = 50


class PosedHead(NamedTuple):
    """The template as one frame has it; world, metres."""

    vertices: np.ndarray  # [V, 3]
    faces: np.ndarray  # [F, 3]
    labels: np.ndarray  # [F]
    hairline: np.ndarray  # [F] logit of being hair, before it is looked at
    head_from_world: np.ndarray  # [4, 4] metres


class Tint(NamedTuple):
    """A Gaussian of colours in [0, 1]."""

    mean: np.ndarray  # [3]
    precision: np.ndarray  # [3, 3]
    log_det: float  # of the precision

    def squared(self, colors: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distances [P] of colours [P, 3]."""
        away = colors - self.mean
        return np.einsum("pi,ij,pj->p", away, self.precision, away)


class Colors(NamedTuple):
    """What a person looks like."""

    skin: Tint
    hair: Tint | None  # None for a bald head, or where it is not told from skin


def hairline_of(template: HeadTemplate) -> np.ndarray:
    """The logit of being hair of each of the template's faces [F], by the scalp."""
    is_scalp = template.labels == segmentation.HAIR
    scalp = KDTree(template.vertices[np.unique(template.faces[is_scalp])])
    away = scalp.query(template.vertices)[0][template.faces].mean(axis=1)
    return np.interp(np.where(is_scalp, -1.0, away), *np.array(_HAIRLINE).T)


def place_head(
    template: HeadTemplate,
    hairline: np.ndarray,
    posed: np.ndarray,
    world_from_head: np.ndarray,
) -> PosedHead:
    """Brings a posed template into the world, eyes and mouth filled.

    Args:
      template: its topology.
      hairline: [F] of `hairline_of`, the same in all frames.
      posed: [V, 3] NPHM units.
      world_from_head: [4, 4] similarity, metres.
    """
    vertices, faces, labels = fill_openings(template, posed)
    matrix = world_from_head.astype(np.float64)
    world = vertices * METRES_PER_UNIT @ matrix[:3, :3].T + matrix[:3, 3]
    # Eyes and what is in the mouth are never hair.
    filled = np.full(len(faces) - len(hairline), -_MOST_LOGIT)
    line = np.concatenate([hairline, filled])
    return PosedHead(world, faces, labels, line, np.linalg.inv(matrix))


def learn_colors(
    clouds: Sequence[PointCloud], heads: Sequence[PosedHead]
) -> Colors | None:
    """Learns the colours of skin and hair from points on face and scalp.

    Args:
      clouds: of some frames.
      heads: of the same.

    Returns:
      None where the face is not seen.
    """
    skin, scalp = [], []
    for cloud, head in zip(clouds, heads, strict=True):
        middles = head.vertices[head.faces].mean(axis=1)
        distance, near = KDTree(middles).query(cloud.xyz, workers=-1)
        is_near = distance < _BESIDE
        hairline, label = head.hairline[near], head.labels[near]
        sure = (hairline <= _HAIRLINE[-1][1]) & (label == segmentation.FACE)
        skin.append(cloud.rgb[is_near & sure])
        scalp.append(cloud.rgb[is_near & (label == segmentation.HAIR)])
    of_skin = _tint(np.concatenate(skin)) if skin else None
    if of_skin is None:
        return None
    on_scalp = np.concatenate(scalp)
    if len(on_scalp) < _FEWEST_SAMPLES:
        return Colors(of_skin, None)
    is_hair = of_skin.squared(on_scalp) > _LIKE_SKIN**2
    is_bald = 1 - is_hair.mean() > _BALD
    return Colors(of_skin, None if is_bald else _tint(on_scalp[is_hair]))


def label_view(
    head: PosedHead,
    colors: Colors | None,
    cloud: PointCloud | None,
    image: np.ndarray,
    matte: np.ndarray,
    camera: Camera,
) -> np.ndarray:
    """The label map of one camera.

    Args:
      head: of the frame.
      colors: of the person; None where they are not known.
      cloud: of the frame, world, metres; None if there is none.
      image: [H, W, 3] uint8.
      matte: [H, W] uint8.
      camera: for images of this size.

    Returns:
      [H, W] uint8 in facer numbering: background, neck (with the torso), face, ears,
      eyes, inside of the mouth, hair.
    """
    height, width = matte.shape
    face, _ = visible_faces(
        head.vertices,
        head.faces,
        viewmat=camera.world2cam.astype(np.float64),
        K=camera.K,
        width=width,
        height=height,
    )
    is_head = face >= 0
    labels = np.where(is_head, head.labels[face], segmentation.BACKGROUND)
    labels[labels == segmentation.HAIR] = segmentation.FACE
    if colors is not None and colors.hair is not None:
        logit = np.where(is_head, head.hairline[face], 0.0)
        logit = logit + _hair_logit(image, colors.skin, colors.hair)
        labels[is_head & (logit > 0)] = segmentation.HAIR
    away, (row, column) = ndimage.distance_transform_edt(~is_head, return_indices=True)
    nearest = labels[row, column]
    is_rim = (away <= _RIM_PIXELS) & np.isin(
        nearest, (segmentation.FACE, *segmentation.EARS)
    )
    beside = _beside(head, cloud, camera, nearest)
    labels = np.where(is_head, labels, np.where(is_rim, nearest, beside))
    labels[matte <= 127] = segmentation.BACKGROUND
    return labels.astype(np.uint8)


def _beside(
    head: PosedHead, cloud: PointCloud | None, camera: Camera, nearest: np.ndarray
) -> np.ndarray:
    """Hair or torso: [H, W], by the points around each pixel, or by the head's part."""
    guess = np.where(nearest == segmentation.NECK, segmentation.NECK, segmentation.HAIR)
    if cloud is None:
        return guess
    to_head = head.head_from_world
    heights = cloud.xyz @ to_head[1, :3] + to_head[1, 3]
    is_low = heights < _THROAT * METRES_PER_UNIT
    cell = max(camera.width / _CELLS, 1.0)
    shape = int(np.ceil(camera.height / cell)), int(np.ceil(camera.width / cell))
    seen, pixels = visible_points(camera, cloud.xyz, cloud.normals)
    at = (pixels[seen] / cell).astype(int)
    votes = np.zeros((2, *shape), np.float32)
    np.add.at(votes, (is_low[seen].astype(int), at[:, 1], at[:, 0]), 1)
    votes = ndimage.gaussian_filter(votes, (0, _REACH, _REACH), mode="constant")
    row = ((np.arange(camera.height) + 0.5) / cell).astype(int)
    column = ((np.arange(camera.width) + 0.5) / cell).astype(int)
    high, low = votes[np.ix_(np.arange(2), row, column)]
    by_votes = np.where(low > high, segmentation.NECK, segmentation.HAIR)
    return np.where(high + low > 0, by_votes, guess)


def _hair_logit(image: np.ndarray, skin: Tint, hair: Tint) -> np.ndarray:
    """How much more a pixel's surroundings look like hair than like skin: [H, W]."""
    colors = image.reshape(-1, 3) / 255
    of_hair = hair.log_det - hair.squared(colors)
    of_skin = skin.log_det - skin.squared(colors)
    logit = np.clip((of_hair - of_skin) / 2, -_MOST_LOGIT, _MOST_LOGIT)
    return ndimage.uniform_filter(logit.reshape(image.shape[:2]), _PATCH)


def _tint(colors: np.ndarray) -> Tint | None:
    """The Gaussian of colours [P, 3], without what is far from most; None for few."""
    if len(colors) < _FEWEST_SAMPLES:
        return None
    colors = colors.astype(np.float64)
    middle = np.median(colors, axis=0)
    distance = np.linalg.norm(colors - middle, axis=1)
    kept = colors[distance <= np.quantile(distance, 0.9)]
    spread = np.cov(kept.T) + _SPREAD**2 * np.eye(3)
    precision = np.linalg.inv(spread)
    return Tint(kept.mean(axis=0), precision, float(np.linalg.slogdet(precision)[1]))
