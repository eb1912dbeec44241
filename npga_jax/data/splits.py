"""Who trains on what: views for training and for the two tests."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from npga_jax.core import InputError
from npga_jax.data.capture import Capture, Timestep, find_sequence


class Views(NamedTuple):
    """One timestep and the cameras of it that belong to a split."""

    timestep: Timestep
    cameras: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Split:
    """Disjoint sets of views."""

    train: tuple[Views, ...]
    novel_view: tuple[Views, ...]  # training timesteps from the held-out camera
    self_reenactment: tuple[Views, ...]  # the held-out sequence from all cameras


def holdout_split(capture: Capture, sequence: str, camera: str) -> Split:
    """Holds out one sequence and one camera.

    Args:
      capture: The capture.
      sequence: Name or prefix of the sequence that is never trained on; "" for none.
      camera: The camera that is never trained on.

    Raises:
      InputError: if the capture has no such sequence or camera, or if nothing is
        left to train on.
    """
    held_out = find_sequence(capture.sequences, sequence) if sequence else ""
    if camera not in capture.cameras:
        raise InputError(
            f"there is no camera '{camera}' in this capture; it has "
            f"{', '.join(capture.cameras)}."
        )
    others = tuple(c for c in capture.cameras if c != camera)
    seen = [t for t in capture.timesteps if t.sequence != held_out]
    unseen = [t for t in capture.timesteps if t.sequence == held_out]
    if not seen or not others:
        what = "camera" if seen else "sequence"
        raise InputError(
            f"nothing is left to train on: with sequence {held_out or 'none'} and "
            f"camera {camera} held out, subject {capture.subject} has no other {what}. "
            "Supply more, or hold out something else with "
            "--capture.held-out-sequence and --capture.held-out-camera."
        )
    return Split(
        train=tuple(Views(t, others) for t in seen),
        novel_view=tuple(Views(t, (camera,)) for t in seen),
        self_reenactment=tuple(Views(t, capture.cameras) for t in unseen),
    )


def expression_codes(capture: Capture, views: Sequence[Views]) -> np.ndarray:
    """The expression codes of views, in their order: [T, E]."""
    return np.stack([capture.driving(v.timestep).expr for v in views])
