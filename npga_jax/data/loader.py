"""Feeds training: which views a step sees, and their arrays, a little ahead of time."""

import queue
import threading
from collections.abc import Callable, Generator
from typing import Any

import numpy as np

from npga_jax.core import Batch, InputError
from npga_jax.data.capture import Capture, Timestep
from npga_jax.data.segmentation import region_mask
from npga_jax.data.splits import Views

_POLL_SECONDS = 0.1
_SIMILAR = 5
"""Frames that a frame is compared with for its rarity."""
_BLOCK_DISTANCES = 1 << 20
"""Distances that are in memory at once."""


def frame_weights(codes: np.ndarray, balance: float) -> np.ndarray:
    """How often each frame is to come, from how rare its expression is.

    Captures are mostly at rest; what training sees rarely it learns late.

    Args:
      codes: [T, E] of the frames.
      balance: 0 for all alike, 1 in proportion to the distance to the frames with the
        most similar codes.

    Returns:
      [T] float64 with mean 1.
    """
    codes = codes.astype(np.float64)
    codes = (codes - codes.mean(axis=0)) / np.maximum(codes.std(axis=0), 1e-6)
    rows = max(1, _BLOCK_DISTANCES // len(codes))
    blocks = range(0, len(codes), rows)
    rarity = np.concatenate([_rarity(codes, slice(b, b + rows)) for b in blocks])
    weights = np.maximum(rarity, 1e-6 + 0.1 * rarity.mean()) ** balance
    return weights / weights.mean()


def _rarity(codes: np.ndarray, rows: slice) -> np.ndarray:
    """Distance of some of the codes [T, E] to those nearest to them, [rows]."""
    block = codes[rows]
    count = min(1 + _SIMILAR, len(codes))  # Each is nearest to itself.
    if count == 1:
        return np.ones(len(block))
    squares = (codes**2).sum(axis=1) - 2 * block @ codes.T  # Less what rows share.
    near = np.argpartition(squares, count - 1, axis=1)[:, :count]
    squares = ((block[:, None] - codes[near]) ** 2).sum(axis=-1)
    return np.sqrt(np.sort(squares, axis=1)[:, 1:].mean(axis=1))


def plan_step(
    step: int,
    *,
    seed: int,
    train: tuple[Views, ...],
    views_per_step: int,
    weights: np.ndarray | None = None,
) -> tuple[Timestep, tuple[str, ...]]:
    """Chooses the views of a step.

    Every timestep comes once an epoch, or as often as its weight says, rounded up or
    down at random. The choice depends on `seed` and `step` alone,
    so a run that is resumed sees what it would have seen.

    Args:
      step: Counts from 0 through the whole run.
      seed: Seed of the order.
      train: The training views.
      views_per_step: Cameras to draw, without replacement.
      weights: [T] with mean 1, how often each timestep comes in an epoch.

    Returns:
      The timestep and the cameras.

    Raises:
      InputError: if the timestep has fewer cameras than that.
    """
    epoch, position = divmod(step, len(train))
    order = _epoch_order(np.random.default_rng((seed, epoch)), len(train), weights)
    timestep, cameras = train[order[position]]
    if not 1 <= views_per_step <= len(cameras):
        raise InputError(
            f"--views-per-step {views_per_step}: there are {len(cameras)} training "
            "cameras to draw from; pass a number from 1 to that."
        )
    rng = np.random.default_rng((seed, epoch, position))
    chosen = rng.choice(len(cameras), views_per_step, replace=False)
    return timestep, tuple(cameras[i] for i in chosen)


def _epoch_order(
    rng: np.random.Generator, count: int, weights: np.ndarray | None
) -> np.ndarray:
    if weights is None:
        return rng.permutation(count)
    # One comb of equal teeth over the weights laid end to end.
    ends = np.cumsum(weights) * (count / np.sum(weights))
    chosen = np.searchsorted(ends, np.arange(count) + rng.random(), side="right")
    return rng.permutation(np.minimum(chosen, count - 1))


def load_batch(capture: Capture, timestep: Timestep, cameras: tuple[str, ...]) -> Batch:
    """Reads the views of one timestep.

    Args:
      capture: The capture.
      timestep: The moment.
      cameras: B serials.

    Returns:
      NumPy arrays. Where there is no matte, the whole image counts as the person:
      training then leaves out the terms that compare opacity with it
      (`LossTerm.needs_mattes`). Without labels no pixel is of an eye or a mouth.
    """
    views = [capture.camera(timestep, c) for c in cameras]
    mattes = [capture.alpha(timestep, c) for c in cameras]
    labels = [capture.labels(timestep, c) for c in cameras]
    opaque = np.full((capture.height, capture.width), 255, np.uint8)
    driving = capture.driving(timestep)
    arrays: dict[str, Any] = {
        "rgb": np.stack([capture.rgb(timestep, c) for c in cameras]),
        "alpha": np.stack([opaque if m is None else m for m in mattes]),
        "parts": np.stack(
            [
                np.zeros_like(opaque) if x is None else 255 * region_mask(x, "parts")
                for x in labels
            ]
        ).astype(np.uint8),
        "viewmats": np.stack([v.world2cam for v in views]),
        "Ks": np.stack([v.K for v in views]),
        "world_from_head": driving.world_from_head,
        "expr": driving.expr,
    }
    return Batch(**arrays)


def prefetch(
    capture: Capture,
    train: tuple[Views, ...],
    *,
    seed: int,
    views_per_step: int,
    start_step: int,
    num_steps: int,
    weights: np.ndarray | None = None,
    depth: int = 2,
    place: Callable[[Batch], Batch] = lambda batch: batch,
) -> Generator[tuple[int, Batch], None, None]:
    """Loads batches ahead of time, in one thread.

    Nothing is kept: at most `depth` batches wait, and one is being loaded. The thread
    ends with the generator; an exception in it is raised here.

    Args:
      capture: The capture.
      train: The training views.
      seed: Seed of the order.
      views_per_step: Cameras of a batch.
      start_step: First step.
      num_steps: How many steps to yield: `start_step` up to, but without,
        `start_step + num_steps`.
      weights: See `plan_step`.
      depth: Batches that may wait.
      place: Brings a batch to where it is needed, in that thread too.

    Yields:
      The step and its batch.
    """
    ready: queue.Queue[tuple[int, Batch] | BaseException] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: tuple[int, Batch] | BaseException) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue

    def load() -> None:
        try:
            for step in range(start_step, start_step + num_steps):
                if stop.is_set():
                    return
                timestep, cameras = plan_step(
                    step,
                    seed=seed,
                    train=train,
                    views_per_step=views_per_step,
                    weights=weights,
                )
                put((step, place(load_batch(capture, timestep, cameras))))
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=load, name="prefetch", daemon=True)
    thread.start()
    try:
        for _ in range(num_steps):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
