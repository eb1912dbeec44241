"""FLAME's parameters as driving codes: expression, jaw, eyes, neck, and the pose.

FLAME's files are licensed and not needed here. What only they tell, where a person's
joints are, is taken from anatomy (`ROOT_JOINT`, `NECK_JOINT`): head poses are off by
what a pivot makes that is some centimetres away, 2 mm a centimetre at 10 degrees. Where
that is too much, track the head from its clouds (experiments/track.py).
"""

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from npga_jax.core import InputError
from npga_jax.data.driving import DrivingFile, driving_from_arrays

MODEL = "flame2023"
NAME = "flame"
"""What --capture.driving calls these codes."""

ROOT_JOINT = np.array([0.0, -0.15, -0.03])
NECK_JOINT = np.array([0.0, -0.07, -0.02])
"""Estimates in metres of FLAME's frame (origin between the ears, y up, z forward):
where the neck begins, and where the skull sits on it."""


def turn_about(joint: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Motions [T, 4, 4] that turn by rotations [T, 3, 3] about a joint [3]."""
    motion = np.tile(np.eye(4), (len(rotations), 1, 1))
    motion[:, :3, :3] = rotations
    motion[:, :3, 3] = joint - rotations @ joint
    return motion


def poses_within(
    rotation: np.ndarray, neck: np.ndarray, translation: np.ndarray
) -> np.ndarray:
    """Head poses where the root turns within FLAME, as in VHAP.

    Args:
      rotation: [T, 3] axis times angle, of the root about its joint.
      neck: [T, 3] axis times angle.
      translation: [T, 3] metres.

    Returns:
      [T, 4, 4] from FLAME's frame to the world.
    """
    root = turn_about(ROOT_JOINT, Rotation.from_rotvec(rotation).as_matrix())
    bent = turn_about(NECK_JOINT, Rotation.from_rotvec(neck).as_matrix())
    moved = np.tile(np.eye(4), (len(translation), 1, 1))
    moved[:, :3, 3] = translation
    return moved @ root @ bent


def poses_outside(
    rotation: np.ndarray, scale: np.ndarray, translation: np.ndarray
) -> np.ndarray:
    """Poses of a model that is turned as a whole, as in DiffusionAvatars.

    Args:
      rotation: [T, 3] intrinsic XYZ Euler angles: Rx Ry Rz.
      scale: [T].
      translation: [T, 3] metres.

    Returns:
      [T, 4, 4] similarities from the model's frame to the world.
    """
    pose = np.tile(np.eye(4), (len(rotation), 1, 1))
    turned = Rotation.from_euler("XYZ", rotation).as_matrix()
    pose[:, :3, :3] = scale[:, None, None] * turned
    pose[:, :3, 3] = translation
    return pose


def flame_driving(
    path: Path,
    frame_id: np.ndarray,
    *,
    expr: np.ndarray,
    jaw: np.ndarray,
    eyes: np.ndarray,
    neck: np.ndarray,
    world_from_head: np.ndarray,
) -> DrivingFile:
    """One code a frame: expression, jaw, eyes, neck; angles as the tracker gave them.

    Args:
      path: Where they are from, for messages.
      frame_id: [T].
      expr: [T, E] of any width.
      jaw: [T, 3].
      eyes: [T, 6].
      neck: [T, 3].
      world_from_head: [T, 4, 4].

    Raises:
      InputError: numbers are not finite, or shapes do not fit.
    """
    parts = {"expr": expr, "jaw": jaw, "eyes": eyes, "neck": neck}
    names = [f"{name}_{i}" for name, x in parts.items() for i in range(x.shape[1])]
    arrays = {
        "frame_id": frame_id,
        "expr": np.concatenate(list(parts.values()), axis=1).astype(np.float32),
        "world_from_head": world_from_head,
        "expr_names": np.array(names),
        "model": np.array(MODEL),
        "head_unit": np.array("m"),
    }
    return driving_from_arrays(path, arrays)


def columns(
    path: Path, arrays: dict[str, np.ndarray], widths: dict[str, int], rows: int
) -> dict[str, np.ndarray]:
    """Parameters of `rows` frames, float64.

    Args:
      path: Where they are from, for messages.
      arrays: By key.
      widths: Columns that each key must have; 0 for any.
      rows: How many.

    Raises:
      InputError: a key is missing, or of another shape.
    """
    found = {}
    for key, width in widths.items():
        array = arrays.get(key, np.empty(0))
        is_right = array.ndim == 2 and len(array) == rows and array.shape[1] > 0
        if not is_right or (width and array.shape[1] != width):
            has = f"is {array.shape}" if key in arrays else "is not there"
            raise InputError(
                f"{path}: '{key}' {has}; expected [{rows}, {width or 'E'}] parameters "
                "of FLAME. Export it again."
            )
        found[key] = array.astype(np.float64)
    return found
