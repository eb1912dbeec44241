"""First poses from triangulated landmarks of the face."""

import numpy as np

from npga_jax.core import rigid_motion
from npga_jax.data import Landmarks
from npga_jax.nphm import METRES_PER_UNIT
from npga_jax.tracking.alignment import Similarity

ON_MEAN_HEAD = {
    33: (-0.178, 0.076, 0.110),  # right eye, outer corner
    133: (-0.071, 0.065, 0.136),  # inner corner
    362: (0.071, 0.065, 0.136),  # left eye
    263: (0.178, 0.076, 0.110),
    9: (0.000, 0.165, 0.179),  # between the brows
    168: (0.000, 0.093, 0.174),  # root of the nose
    1: (0.000, -0.076, 0.260),  # its tip
    2: (0.000, -0.106, 0.224),  # where it meets the lip
    129: (-0.083, -0.079, 0.176),  # its wings
    358: (0.083, -0.079, 0.176),
    61: (-0.104, -0.205, 0.171),  # corners of the mouth
    291: (0.104, -0.205, 0.171),
    152: (0.000, -0.356, 0.188),  # chin
}
"""Where some of MediaPipe's 478 landmarks lie on the neutral mean head, NPHM units.

Measured: landmarks triangulated in 8 frames of a rendered ICT-FaceKit head, carried to
the mean head by the vertices around them, and made symmetric. They spread by 1.5 mm at
most over frames, and lie within 5 mm (the chin 8 mm) of MediaPipe's own canonical face,
scaled and turned onto them.
"""
_FEWEST = 6
_MOST_OFF = 0.02
"""Metres, median, that a face may be off the mean one's; others are no faces."""


def pose_of_landmarks(landmarks: Landmarks) -> Similarity | None:
    """The rigid motion of the mean head onto landmarks.

    Its scale is one, as that of all first poses: how large a head is belongs to its
    identity, and a face that is longer than the mean one would come out as larger.
    Chin and mouth count as the others do: without them, nodding is hardly known.

    Args:
      landmarks: of one moment.

    Returns:
      The pose; None where too few landmarks are known, or they are no face.
    """
    known = [i for i in ON_MEAN_HEAD if landmarks.agreeing[i] > 0]
    if len(known) < _FEWEST:
        return None
    head = METRES_PER_UNIT * np.array([ON_MEAN_HEAD[i] for i in known])
    points = landmarks.points[known].astype(np.float64)
    rotation, shift = rigid_motion(head, points)
    off = np.linalg.norm(head @ rotation.T + shift - points, axis=1)
    return Similarity(rotation, shift, 1.0) if np.median(off) < _MOST_OFF else None
