"""Tracks a subject: from a capture's clouds to driving codes of every sequence."""

import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.core import check_ranges, check_writable
from npga_jax.data import Capture, CaptureConfig, Timestep, open_located
from npga_jax.nphm import MILLIMETRES_PER_UNIT
from npga_jax.tracking import schedule
from npga_jax.tracking.alignment import Similarity, refined
from npga_jax.tracking.appearance import color_channels
from npga_jax.tracking.clouds import padded
from npga_jax.tracking.equations import Observations, PriorWeights, Unknowns
from npga_jax.tracking.files import Tracked, model_name, read_identity, write_tracked
from npga_jax.tracking.frame_report import FrameFit, frame_fits, write_report
from npga_jax.tracking.gathering import Frame, gather_frames
from npga_jax.tracking.head_prior import LoadedPrior, open_prior
from npga_jax.tracking.options import TrackingOptions
from npga_jax.tracking.overlay import write_overlays
from npga_jax.tracking.refinement import refine


class Tracking(NamedTuple):
    """What came out."""

    frames: list[Frame]
    unknowns: Unknowns
    poses: list[Similarity]
    fits: list[FrameFit]
    without_cloud: list[Timestep]
    seconds: float  # without compilation's share, if the programs were cached


def track_subject(
    root: Path,
    subject: str,
    capture_cfg: CaptureConfig,
    *,
    prior: Path | None,
    output: Path,
    sequences: tuple[str, ...] | None = None,
    overlay: bool = False,
    options: TrackingOptions = TrackingOptions(),  # noqa: B008 - immutable
) -> Tracking | None:
    """Tracks sequences and writes <output>/SEQ/tracking/nphm.npz.

    Sequences that have codes there already are kept, and new ones take their identity.

    Args:
      root: folder that holds the subject's.
      subject: the subject's folder.
      capture_cfg: what to use of the capture.
      prior: head model; None for the packaged one.
      output: where to write.
      sequences: which to track; None for all.
      overlay: also draw the tracked heads on the images of the most frontal camera.
      options: settings of the fit.

    Returns:
      What was tracked now, or None if everything was there.

    Raises:
      InputError: the capture or the model cannot be used, or nothing has a cloud.
    """
    check_ranges(options, "tracking.")
    loaded = open_prior(prior)
    capture = open_located(root, subject, capture_cfg, decode=False, need_driving=False)
    for note in capture.notes:
        print(f"note: {note}", file=sys.stderr)
    wanted = capture.sequences if sequences is None else sequences
    there = read_identity(output, wanted, loaded)
    missing = tuple(s for s in wanted if s not in there.sequences)
    if not missing:
        print(f"all {len(wanted)} sequences are tracked already: {output}")
        return None
    check_writable(output)
    tracking = track(capture, loaded, missing, options, geo=there.geo)
    for sequence in missing:
        write_tracked(output, sequence, _tracked(tracking, sequence, loaded))
    write_report(output, subject, loaded.name, tracking.fits, tracking.without_cloud)
    if overlay:
        write_overlays(output, capture, loaded.model, tracking)
    return tracking


def track(
    capture: Capture,
    loaded: LoadedPrior,
    sequences: Sequence[str],
    options: TrackingOptions,
    *,
    geo: np.ndarray | None = None,
) -> Tracking:
    """Fits all frames of some sequences of one person.

    Args:
      geo: [lat_dim_geo] identity of earlier tracking, which is then held.
    """
    began = time.perf_counter()
    params = jax.tree.map(jnp.asarray, loaded.model.params)
    model = loaded.model._replace(params=params)
    prior = PriorWeights(
        noise=options.noise_mm / MILLIMETRES_PER_UNIT,
        geo=1.0 / loaded.geo_std**2,
        exp=1.0 / loaded.exp_std**2,
        smooth_exp=options.smoothness / float(np.median(loaded.exp_std)) ** 2,
        symmetry=options.symmetry / float(np.median(loaded.geo_std)) ** 2,
    )
    frames, without_cloud = gather_frames(capture, model, sequences, options)
    observations, channels = _observations(frames, options)
    links = _links([frame.timestep for frame in frames])
    unknowns = schedule.start(model.cfg, len(frames))
    unknowns = schedule.fit_poses(model, observations, unknowns, prior, progress=True)
    if geo is None:
        unknowns = _fit_identity(
            model,
            observations,
            unknowns,
            prior,
            options.identity_frames,
            progress=True,
        )
    else:
        unknowns = unknowns._replace(geo=jnp.asarray(geo))
    unknowns = schedule.fit_expressions(
        model, observations, unknowns, links, prior, progress=True
    )
    if geo is None:
        unknowns = _fit_identity(
            model,
            observations,
            unknowns,
            prior,
            options.joint_frames,
            stages=schedule.JOINT_STAGES,
            progress=True,
            name="identity, all expressions",
        )
    # From here on the identity is held.
    prior = prior._replace(noise=options.expression_noise_mm / MILLIMETRES_PER_UNIT)
    unknowns = refine(
        capture, model, frames, observations, channels, unknowns, links, prior, options
    )
    unknowns = jax.device_get(unknowns)
    poses = [
        refined(frame.pose, unknowns.pose[i].astype(np.float64))
        for i, frame in enumerate(frames)
    ]
    fits = frame_fits(
        loaded.model,
        unknowns,
        frames,
        poses,
    )
    seconds = time.perf_counter() - began
    return Tracking(frames, unknowns, poses, fits, without_cloud, seconds)


def _observations(
    frames: list[Frame], options: TrackingOptions
) -> tuple[Observations, jax.Array]:
    """Points of all frames, and their colours [T, P, 3]."""
    columns = [
        padded(
            (
                frame.pose.to_head(frame.points.xyz),
                frame.pose.turn_to_head(frame.points.normals),
                color_channels(frame.points.rgb),
            ),
            options.points,
        )
        for frame in frames
    ]
    points, normals, channels, weights = (
        jnp.asarray(np.stack(c)) for c in zip(*columns, strict=True)
    )
    return Observations(points, normals, weights), channels


def _links(timesteps: list[Timestep]) -> np.ndarray:
    """1 where the frame before follows in time: [T]."""
    linked = [
        a.sequence == b.sequence and b.index == a.index + 1
        for a, b in itertools.pairwise(timesteps)
    ]
    return np.array([0, *linked], np.float32)


def _spread(num_frames: int, count: int) -> np.ndarray:
    return np.unique(np.linspace(0, num_frames - 1, count).round().astype(int))


def _take(tree, index: np.ndarray):
    return jax.tree.map(lambda x: x[index], tree)


def _fit_identity(
    model, observations, unknowns, prior, count: int, **options
) -> Unknowns:
    """The identity from a few frames, spread over all, which keep their values."""
    index = _spread(len(unknowns.exp), count)
    few = schedule.fit_identity(
        model,
        _take(observations, index),
        Unknowns(unknowns.geo, unknowns.exp[index], unknowns.pose[index]),
        np.zeros(len(index)),
        prior,
        **options,
    )
    return unknowns._replace(geo=few.geo)


def _tracked(tracking: Tracking, sequence: str, loaded: LoadedPrior) -> Tracked:
    rows = [
        i
        for i, frame in enumerate(tracking.frames)
        if frame.timestep.sequence == sequence
    ]
    return Tracked(
        frame_id=np.array([tracking.frames[i].timestep.frame_id for i in rows]),
        expr=np.asarray(tracking.unknowns.exp[rows]),
        world_from_head=np.array([tracking.poses[i].matrix() for i in rows]),
        z_id=np.asarray(tracking.unknowns.geo),
        residual_mm=np.array([tracking.fits[i].median_mm for i in rows]),
        model=model_name(loaded),
    )
