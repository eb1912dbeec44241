"""The true surface of captures that were rendered from ICT-FaceKit and say how."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from npga_jax.core import InputError

METRES_PER_CM = 0.01


def load_truth(capture: Path) -> dict[str, np.ndarray]:
    """The weights and motion that a capture was rendered with."""
    path = capture / "ground_truth" / "truth.npz"
    try:
        with np.load(path, allow_pickle=False) as archive:
            truth = {key: archive[key] for key in archive.files}
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing: only captures rendered from a known head can be "
            "evaluated."
        ) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({error}).") from error
    if "identity" not in truth or "pivot_cm" not in truth:
        raise InputError(f"{path} lacks identity or pivot_cm; it has {sorted(truth)}.")
    return truth


def check_sequence(truth: dict[str, np.ndarray], capture: Path, sequence: str) -> None:
    """Refuses a sequence whose truth is not there."""
    needed = ("weights", "rotation", "translation")
    if any(f"{sequence}/{name}" not in truth for name in needed):
        raise InputError(
            f"{capture} has no ground truth of '{sequence}'; name the sequence with "
            "--sequence."
        )


def faces_at_rest(
    ict: Any, identity: np.ndarray, weights: np.ndarray, part: slice
) -> np.ndarray:
    """Vertices of a part of the head without its pose, centimetres of ICT's frame.

    Args:
      ict: IctModel.
      identity: [I] of one person.
      weights: [T, E] of expressions.
      part: which vertices.

    Returns:
      [T, V, 3] float64.
    """
    weights = weights.astype(np.float32)
    people = np.broadcast_to(identity.astype(np.float32), (len(weights), len(identity)))
    return ict.vertices(people, weights)[:, part].astype(np.float64)


def narrow_face(ict: Any, identity: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The same of the narrow face: [T, V, 3]."""
    from npga_jax.prior import NARROW_FACE_VERTICES

    return faces_at_rest(ict, identity, weights, NARROW_FACE_VERTICES)


def true_surface(truth, ict: Any, sequence: str, frame: int) -> np.ndarray:
    """Vertices of the narrow face in the world, metres: [V, 3]."""
    weights = truth[f"{sequence}/weights"][frame]
    vertices = narrow_face(ict, truth["identity"], weights[None])[0]
    return _to_world(truth, sequence, frame, vertices)[0]


def true_face(
    truth, ict: Any, sequence: str, frame: int, part: slice | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [V, 3] in the world, metres, and how the head is turned [3, 3].

    Args:
      part: which vertices; None for the whole face.
    """
    from npga_jax.prior import FACE_VERTICES

    weights = truth[f"{sequence}/weights"][frame]
    part = FACE_VERTICES if part is None else part
    vertices = faces_at_rest(ict, truth["identity"], weights[None], part)[0]
    return _to_world(truth, sequence, frame, vertices)


def _to_world(truth, sequence: str, frame: int, vertices: np.ndarray):
    a, b, c = np.deg2rad(truth[f"{sequence}/rotation"][frame].astype(np.float64))
    x = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
    y = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    z = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
    rotation = np.array(z) @ np.array(y) @ np.array(x)
    pivot = truth["pivot_cm"]
    moved = (vertices - pivot) @ rotation.T + pivot
    return (moved + truth[f"{sequence}/translation"][frame]) * METRES_PER_CM, rotation
