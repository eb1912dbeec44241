"""The loop that trains a prior: batches a step ahead, progress, checkpoints."""

import math
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.core import (
    CHECKPOINTS,
    InputError,
    Interrupts,
    MetricsLog,
    Progress,
    checkpoint,
    current_rss_mb,
)
from npga_jax.nphm import MILLIMETRES_PER_UNIT, HeadModel, NPHMConfig, init_params
from npga_jax.prior.anchors import choose_anchors
from npga_jax.prior.autodecoder import (
    Codebook,
    PriorState,
    Rates,
    initial_state,
    make_optimizer,
    make_train_step,
)
from npga_jax.prior.batches import PointCounts, Sampler, TrainBatch
from npga_jax.prior.initial_codes import CODE_STD, initial_codes
from npga_jax.prior.scans import FACE, OUTER, RegisteredScans
from npga_jax.prior.settings import PriorConfig

_ANCHOR_START = 0.05
"""Scale of the first weights that move anchors: they start where the mean head has
them, and the local networks need not follow them about."""


class Setup(NamedTuple):
    """What a training starts from, all of it a function of settings and scans."""

    cfg: NPHMConfig
    anchor_vertices: np.ndarray  # [n]
    anchors_mean: np.ndarray  # [n, 3]
    state: PriorState


def prepare(settings: PriorConfig, scans: RegisteredScans) -> Setup:
    """Anchors, first codes and first weights."""
    cfg = settings.network()
    anchor_vertices = choose_anchors(
        scans.mean,
        scans.faces,
        np.isin(scans.vertex_regions, (FACE, OUTER)),
        num_pairs=cfg.num_symm_pairs,
        num_middle=cfg.num_anchors - 2 * cfg.num_symm_pairs,
    )
    anchors_mean = scans.mean[anchor_vertices]
    geo, exp = initial_codes(scans, anchor_vertices, cfg)
    params = init_params(jax.random.key(settings.seed), cfg, anchors_mean)
    last = params["identity"]["pos"][-1]
    params["identity"]["pos"][-1] = jax.tree.map(lambda w: w * _ANCHOR_START, last)
    codes = Codebook(geo=jnp.asarray(geo), exp=jnp.asarray(exp))
    weights = {part: params[part] for part in ("identity", "deformation")}
    state = initial_state(weights, codes, _optimizer(settings))
    return Setup(
        cfg=cfg,
        anchor_vertices=anchor_vertices,
        anchors_mean=anchors_mean,
        # As a checkpoint is loaded: another placement would be another program.
        state=jax.device_put(state, _one_device()),
    )


def _one_device() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.devices()[0])


def _rates(settings: PriorConfig) -> Rates:
    return Rates(networks=settings.rate, matrices=4 * settings.rate)


def _optimizer(settings: PriorConfig):
    return make_optimizer(_rates(settings), settings.steps)


def make_step(settings: PriorConfig, setup: Setup):
    """The compiled step of a training: (state, batch) -> (state, losses)."""
    return make_train_step(
        setup.cfg,
        setup.anchors_mean,
        _optimizer(settings),
        _rates(settings),
        settings.steps,
        code_noise=settings.code_noise * CODE_STD,
        seed=settings.seed,
    )


def head_model(setup: Setup, state: PriorState) -> HeadModel:
    """The model that a state of the training is."""
    params = {"anchors_mean": setup.anchors_mean, **jax.device_get(state.weights)}
    return HeadModel(setup.cfg, params)


def _prefetch(sampler: Sampler, start: int, stop: int) -> Iterator[TrainBatch]:
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(sampler.batch, start)
        for step in range(start, stop):
            batch = following.result()
            if step + 1 < stop:
                following = pool.submit(sampler.batch, step + 1)
            yield batch


def train(
    settings: PriorConfig, scans: RegisteredScans, setup: Setup, folder: Path
) -> tuple[PriorState, float]:
    """Trains to the last step, from the newest checkpoint if the settings resume.

    Returns:
      The state, and the seconds that training took, earlier runs included.

    Raises:
      InputError: if numbers stop being finite or the disk is full; the checkpoint
        before it stays.
      KeyboardInterrupt: after Ctrl-C, the step in hand done and saved.
      Stopped: after SIGTERM, likewise.
    """
    state, seconds_before = setup.state, 0.0
    newest = checkpoint.latest_step(folder / CHECKPOINTS)
    if settings.resume and newest is not None:
        state, metadata = checkpoint.load_state(
            folder / CHECKPOINTS, newest, state, _one_device()
        )
        seconds_before = float(metadata["seconds"])
        print(f"resuming at step {newest}")
    sampler = Sampler(
        scans,
        setup.anchor_vertices,
        PointCounts(),
        settings.scans_per_step,
        settings.seed,
    )
    step_fn = make_step(settings, setup)
    start = int(state.step)
    log = MetricsLog(folder, from_step=start)
    began = mark = time.perf_counter()
    marked, seconds, averages = start, seconds_before, {}
    try:
        shown = Progress(
            "training the prior", settings.steps, unit="steps", start=start
        )
        with Interrupts() as interrupts, shown:
            for batch in _prefetch(sampler, start, settings.steps):
                state, losses = step_fn(state, batch)
                done = int(state.step)
                _check(state, losses, done)
                seconds = seconds_before + time.perf_counter() - began
                averages = _averaged(averages, losses)
                is_last = interrupts.requested or done == settings.steps
                if is_last or done % settings.log_every == 0:
                    now = time.perf_counter()
                    rate = (done - marked) / max(now - mark, 1e-9)
                    mark, marked = now, done
                    shown(done, _measures(averages, rate))
                    log.write(
                        step=done,
                        seconds=round(seconds, 3),
                        it_per_s=round(rate, 4),
                        rss_mb=current_rss_mb(),
                        **averages,
                    )
                if is_last or done % settings.save_every == 0:
                    checkpoint.save_state(
                        folder / CHECKPOINTS, state, {"seconds": seconds}
                    )
                if interrupts.requested:
                    break
    finally:
        log.close()
    if interrupts.requested:
        print(
            f"stopped at step {int(state.step)}, saved; go on with --resume",
            file=sys.stderr,
        )
    interrupts.raise_if_requested()
    return state, seconds


def _check(state: PriorState, losses: dict[str, jax.Array], done: int) -> None:
    if bool(state.halted):
        bad = [name for name, value in losses.items() if not math.isfinite(value)]
        raise InputError(
            f"step {done + 1} gave numbers that are not finite ("
            f"{', '.join(bad) or 'the gradient'}): training has diverged. "
            "Begin again in another --output with a lower --rate."
        )


def _averaged(averages: dict[str, float], losses: dict[str, Any]) -> dict[str, float]:
    """Moving average over about 50 steps."""
    fresh = {name: float(value) for name, value in losses.items()}
    return {k: 0.98 * averages.get(k, v) + 0.02 * v for k, v in fresh.items()}


def _measures(averages: dict[str, float], rate: float) -> str:
    """What the line of progress says of the losses."""
    surface = averages["surf_sdf"] * MILLIMETRES_PER_UNIT
    canonical = math.sqrt(3 * averages["near_corresp"]) * MILLIMETRES_PER_UNIT
    return (
        f"loss {averages['total']:.4f}  surface {surface:.2f} mm  "
        f"canonical {canonical:.2f} mm  {rate:.2f} it/s"
    )
