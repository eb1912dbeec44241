"""What `import npga_jax` offers beside types: whole tasks, with sane defaults."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npga_jax.avatar import Avatar, Forward, Method
from npga_jax.core import InputError, Params
from npga_jax.data import (
    Capture,
    CaptureConfig,
    expression_codes,
    holdout_split,
    locate_subject,
    tracking_output,
)
from npga_jax.data import open_capture as open_subject
from npga_jax.distillation import Person, forward_path, open_person
from npga_jax.tracking import (
    LoadedPrior,
    Tracking,
    TrackingOptions,
    open_prior,
    track_subject,
)
from npga_jax.training import (
    TrainConfig,
    default_method,
    distill_options,
    load_avatar,
    validate,
)


def load(path: str | Path, *, method: str | Path | Method | None = None) -> Avatar:
    """Opens a trained avatar: an avatar.npz, or the run folder that holds one.

    Neither the run nor the capture need be there. Args and errors are those of
    `training.load_avatar`.
    """
    return load_avatar(path, method=method)


def load_prior(path: str | Path | None = None) -> LoadedPrior:
    """Opens a head model, with the spread of its codes.

    Args:
      path: an .npz of this project, or MonoNPHM's checkpoint; None for the packaged
        model.

    Raises:
      InputError: it is absent or damaged.
    """
    return open_prior(None if path is None else Path(path))


def open_capture(
    subject: str = "demo",
    data_root: str | Path | None = None,
    cfg: CaptureConfig | None = None,
) -> Capture:
    """Opens a capture of any layout that is read, decoding its videos into the cache.

    Args:
      subject: name of its folder, or "demo" for the packaged one.
      data_root: the folder that holds the subjects; None for $NPGA_DATA.
      cfg: which part of it is used, and how.

    Raises:
      InputError: there is no such subject, or its data cannot be used.
    """
    root = None if data_root is None else Path(data_root)
    return open_subject(subject, root, cfg or CaptureConfig())


def track(
    subject: str = "demo",
    data_root: str | Path | None = None,
    *,
    output: str | Path | None = None,
    prior: str | Path | None = None,
    cfg: CaptureConfig | None = None,
    options: TrackingOptions | None = None,
) -> Tracking | None:
    """Fits a head model to a capture's point clouds: codes and poses of every frame.

    Args:
      subject: as for `open_capture`; likewise `data_root`, `cfg`.
      output: folder of the driving files; None for the capture where it holds such
        files already, else the cache; training looks in both.
      prior: head model; None for the packaged one.
      options: of the fit.

    Returns:
      What was tracked now; None if all of it was there already.

    Raises:
      InputError: the capture or the model cannot be used.
    """
    cfg = cfg or CaptureConfig()
    root, name = locate_subject(subject, None if data_root is None else Path(data_root))
    folder = tracking_output(root / name, cfg)
    return track_subject(
        root,
        name,
        cfg,
        prior=None if prior is None else Path(prior),
        output=folder if output is None else Path(output),
        options=options or TrackingOptions(),
    )


class Distilled(NamedTuple):
    """F of a person: `forward.apply(params, means, features, bindings, expr)`."""

    forward: Forward
    params: Params
    person: Person
    codes: np.ndarray  # [T, E] of the training frames, which it was distilled with
    path: Path  # in the cache
    was_cached: bool


def distill(capture: Capture, cfg: TrainConfig | None = None) -> Distilled:
    """F of a capture's person, from the cache if it is there.

    What is held out, and where the cache is, the capture says as it was opened.

    Args:
      capture: with codes of the head tracker.
      cfg: settings of F: `forward`, `gaussians.feature_dim`, and `prior`, the head
        model of the codes; its `capture` is not looked at.

    Raises:
      InputError: the settings ask for no F; or the codes are of no head model, or of
        another one.
    """
    cfg = dataclasses.replace(cfg or TrainConfig(), capture=capture.settings)
    validate(cfg)
    forward = default_method(cfg).forward
    if forward.fit is None:
        raise InputError("--forward.source none asks for no F; leave it out here.")
    person = open_person(capture, cfg.prior)
    if person is None:
        raise InputError(
            f"the codes of subject {capture.subject} are of "
            f"'{capture.driving_model}', which no F can be distilled from; make codes "
            "of a head model with experiments/track.py and use them with "
            "--capture.driving nphm."
        )
    split = holdout_split(
        capture, cfg.capture.held_out_sequence, cfg.capture.held_out_camera
    )
    codes = expression_codes(capture, split.train)
    width = cfg.gaussians.feature_dim
    path = forward_path(
        person, codes, width, distill_options(cfg), cfg.capture.cache_dir
    )
    was_cached = path.is_file()
    params = forward.fit(person, codes, width)
    return Distilled(forward, params, person, codes, path, was_cached)
