"""A face in a video, without one: landmarks of a head whose codes are known."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from npga_jax.nphm import METRES_PER_UNIT
from npga_jax.tracking.alignment import Similarity
from npga_jax.tracking.faces import Faces
from npga_jax.tracking.head_prior import LoadedPrior
from npga_jax.tracking.landmark_term import (
    model_landmarks,
    packaged_table,
    place_landmarks,
)
from npga_jax.tracking.monocular import Lens, usual_lens
from npga_jax.tracking.terms import Head

WIDTH, HEIGHT = 320, 240


class MadeUpVideo(NamedTuple):
    """What is seen, and what is true."""

    faces: Faces
    lens: Lens
    points: np.ndarray  # [T, 478, 3] landmarks in the camera's frame, metres


def made_up_video(loaded: LoadedPrior, num_frames: int, seed: int) -> MadeUpVideo:
    """A head that turns and speaks before a camera."""
    rng = np.random.default_rng(seed)
    model = loaded.model._replace(params=jax.tree.map(jnp.asarray, loaded.model.params))
    geo = jnp.asarray(0.7 * loaded.geo_std * rng.normal(size=len(loaded.geo_std)))
    ends = 0.8 * loaded.exp_std * rng.normal(size=(2, len(loaded.exp_std)))
    landmarks = model_landmarks(model, packaged_table(), np.arange(478))
    lens = usual_lens(WIDTH, HEIGHT)

    @jax.jit
    def place(exp):
        head = Head(geo, exp, jnp.zeros(6))
        places, _, _ = place_landmarks(model.params, model.cfg, landmarks, head)
        return places + landmarks.offsets

    points = []
    for i, share in enumerate(np.linspace(0, 1, num_frames)):
        exp = np.sin(3 * share) * ends[0] + np.sin(5 * share) * ends[1]
        turn = Rotation.from_euler("xyz", [4 * share, 20 * share - 10, i % 2], True)
        rotation = turn.as_matrix() @ np.diag([1.0, -1, -1])
        pose = Similarity(rotation, np.array([0.01 * share, 0, 0.6]), 1.0)
        found = np.asarray(place(jnp.asarray(exp, jnp.float32)), np.float64)
        points.append(METRES_PER_UNIT * found @ rotation.T + pose.translation)
    points = np.stack(points)
    pixels = points @ lens.K.T
    pixels = pixels[..., :2] / pixels[..., 2:]
    pixels = pixels + 0.1 * rng.normal(size=pixels.shape)
    frame_id = np.arange(num_frames)
    faces = Faces(
        frame_id, pixels.astype(np.float32), num_frames, 0, WIDTH, HEIGHT, 25.0
    )
    return MadeUpVideo(faces, lens, points)
