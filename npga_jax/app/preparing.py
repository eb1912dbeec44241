"""From a raw capture to one to train on: mattes, clouds, codes, label maps."""

import dataclasses
import time
from collections.abc import Collection

from npga_jax.app.deciding import check_before_preparing, make_codes
from npga_jax.app.job import Preparing
from npga_jax.app.making import make_labels, make_mattes, make_missing_clouds
from npga_jax.data import Capture, open_capture
from npga_jax.preparation import (
    FEWEST_CAMERAS,
    can_be_outlined,
    checks_of,
    files_to_label,
    frames_without_clouds,
    tasks_of,
)
from npga_jax.tracking import model_name, open_prior
from npga_jax.training import TrainConfig


def open_prepared(
    cfg: TrainConfig,
    job: Preparing,
    untracked: tuple[str, ...],
    stages: dict[str, float],
) -> Capture:
    """Opens the capture, once what it lacks is made: mattes, clouds, codes, labels.

    Args:
      cfg: settings of the run.
      job: where it is, and where what is made goes.
      untracked: sequences without codes.
      stages: gets the seconds of each step.
    """
    # Where an earlier run ended between two videos, some have mattes and some have not.
    is_between = job.capture.mattes and _lacks_mattes(job)
    without = dataclasses.replace(cfg.capture, mattes=False)
    before = dataclasses.replace(cfg, capture=without) if is_between else cfg
    sequences = check_before_preparing(before, job.root, job.name)
    stages |= prepare_missing(job, untracked)
    if untracked:
        began = time.perf_counter()
        make_codes(cfg, job.root, job.name, sequences, untracked)
        stages["tracking"] = time.perf_counter() - began
    capture = open_capture(cfg.subject, cfg.data_root, cfg.capture)
    if lacks_labels(job, capture):
        began = time.perf_counter()
        make_labels(job)
        capture = open_capture(cfg.subject, cfg.data_root, cfg.capture)
        stages["labels"] = time.perf_counter() - began
    return capture


def prepare_missing(job: Preparing, untracked: Collection[str]) -> dict[str, float]:
    """Makes the mattes and clouds that training and tracking need and have not.

    Mattes are made of clean plates, or else of outlines where no video has any; clouds
    where a sequence that is to be tracked has none of its own.

    Args:
      job: what is prepared.
      untracked: sequences that are to be tracked.

    Returns:
      Seconds of each step for which something lacked.

    Raises:
      InputError: something is wrong with the capture, or it cannot be written.
    """
    seconds: dict[str, float] = {}
    if job.capture.mattes and _lacks_mattes(job):
        began = time.perf_counter()
        make_mattes(job)
        seconds["mattes"] = time.perf_counter() - began
    if untracked:
        capture = job.open(decode=False)
        lacking = frames_without_clouds(capture, job.output, untracked)
        if lacking and capture.has_mattes and len(capture.cameras) >= FEWEST_CAMERAS:
            began = time.perf_counter()
            make_missing_clouds(job, lacking)
            seconds["clouds"] = time.perf_counter() - began
    return seconds


def _lacks_mattes(job: Preparing) -> bool:
    """Whether there are videos without mattes, and something to make them of."""
    if not job.has_raw_layout:
        return False
    raw = job.raw()
    if not raw.plates and not can_be_outlined(raw):
        return False
    tasks = tasks_of(raw, job.output, job.matte_width)
    return any(checks_of(task) is None for task in tasks)


def lacks_labels(job: Preparing, capture: Capture) -> bool:
    """Whether a capture is tracked by our head model and lacks label maps of it."""
    # Codes of ours name their model so.
    if not capture.has_mattes or not capture.driving_model.startswith("nphm "):
        return False
    is_ours = capture.driving_model == model_name(open_prior(job.prior))
    return is_ours and bool(files_to_label(capture, job.output))
