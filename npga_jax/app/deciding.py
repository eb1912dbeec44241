"""What only a capture decides: the codes that are used, and where F comes from."""

import dataclasses
from pathlib import Path

from npga_jax.core import InputError
from npga_jax.data import (
    TRACKED,
    Capture,
    CaptureConfig,
    holdout_split,
    open_located,
    tracking_output,
)
from npga_jax.distillation import Person, open_person
from npga_jax.tracking import track_subject
from npga_jax.training import TrainConfig


def opened_settings(cfg: TrainConfig, capture: Capture) -> TrainConfig:
    """Settings for a capture that was opened already: as it was opened.

    What is held out is as `cfg` says, where that is not the usual; the capture knows
    what else there is to hold out in its layout. A capture of somebody's own that says
    nothing takes all from `cfg`.
    """
    usual, asked, found = CaptureConfig(), cfg.capture, capture.settings
    if found == usual:
        return cfg
    own = {
        name: getattr(asked, name)
        for name in ("held_out_sequence", "held_out_camera")
        if getattr(asked, name) != getattr(usual, name)
    }
    return dataclasses.replace(cfg, capture=dataclasses.replace(found, **own))


def decide(cfg: TrainConfig, capture: Capture) -> tuple[TrainConfig, Person | None]:
    """What only the capture decides: which codes are used, and where F comes from.

    Returns:
      The settings as the run keeps them, also if files of another tracker are added
      later; and whose head model F is distilled from, if it is.

    Raises:
      InputError: what was asked for does not go with the codes.
    """
    used = dataclasses.replace(cfg.capture, driving=capture.driving_name)
    cfg = dataclasses.replace(cfg, capture=used)
    if cfg.forward.source == "none":
        return cfg, None
    person = open_person(capture, cfg.prior)
    if person is None and cfg.forward.source == "distilled":
        raise InputError(
            f"--forward.source distilled needs codes of the head tracker; those of "
            f"subject {cfg.subject} are of '{capture.driving_model}'. Make codes with "
            "experiments/track.py and use them with --capture.driving nphm."
        )
    source = "none" if person is None else "distilled"
    cfg = dataclasses.replace(
        cfg, forward=dataclasses.replace(cfg.forward, source=source)
    )
    return cfg, person


def check_before_preparing(cfg: TrainConfig, root: Path, name: str) -> tuple[str, ...]:
    """Says what is wrong with a capture or its split before hours are spent on it.

    Returns:
      Its sequences.
    """
    capture = open_located(
        root, name, cfg.capture, progress=False, decode=False, need_driving=False
    )
    held_out = capture.settings
    holdout_split(capture, held_out.held_out_sequence, held_out.held_out_camera)
    return capture.sequences


def make_codes(
    cfg: TrainConfig,
    root: Path,
    name: str,
    sequences: tuple[str, ...],
    untracked: tuple[str, ...],
) -> None:
    """Runs the head tracker, for the sake of sequences that lack its codes."""
    output = tracking_output(root / name, cfg.capture)
    count = len(untracked)
    print(
        f"{count} of {len(sequences)} sequences of subject {cfg.subject} "
        f"{'has' if count == 1 else 'have'} no "
        f"{f'{TRACKED}.npz' if cfg.capture.driving else 'driving codes'}: tracking the "
        f"head first; codes go to {output}",
        flush=True,
    )
    # It keeps what is there already, and takes the identity from it. Without a name it
    # may start from the poses of any other tracker.
    track_subject(
        root,
        name,
        dataclasses.replace(cfg.capture, driving=""),
        prior=cfg.prior,
        output=output,
        sequences=sequences,
    )
