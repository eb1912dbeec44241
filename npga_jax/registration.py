"""A head start for G: its motion is fitted to the point clouds before any image is seen.

Image gradients reach about as far as a splat is wide, a jaw opens by centimetres. So the
centres are first registered to the training frames' clouds: nearest neighbours in space
and colour, both ways, point to plane, with the expression codes as the only variables
over time. Tens of seconds, and only the weights of G change.
"""

import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.spatial import cKDTree

from npga_jax.avatar import DetailFn
from npga_jax.data.capture import Capture, Timestep
from npga_jax.initialization import OUTLIER_FACTOR, neighbour_spacing, to_head_frame
from npga_jax.types import Params

COLOR_WEIGHT = 0.03
"""Metres that a colour difference of 1 counts in the search for neighbours."""
ROBUST_DISTANCE = 0.01
"""Metres; residuals beyond it stop growing in influence."""
POINT_WEIGHT = 0.1
"""Weight of the point-to-point beside the point-to-plane term."""
CODE_NOISE = 0.01
"""Standard deviation of the noise on codes: as ridge regression on the basis."""
NUM_POINTS = 4_000
FRAMES_PER_STEP = 4


class _Frame(NamedTuple):
    expr: np.ndarray  # [E]
    points: np.ndarray  # [P, 3] head frame
    normals: np.ndarray  # [P, 3] head frame
    rgb: np.ndarray  # [P, 3]
    tree: cKDTree  # of points and weighted colours


class Matches(NamedTuple):
    """Pairs of a canonical point and a place where it should be, for B frames."""

    expr: jax.Array  # [B, E]
    source: jax.Array  # [B, M] indices of canonical points
    target: jax.Array  # [B, M, 3] head frame
    normal: jax.Array  # [B, M, 3] unit, or zero where unknown


def _descriptor(points: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    return np.concatenate([points, COLOR_WEIGHT * rgb], axis=1)


def _read_frames(capture: Capture, timesteps: Sequence[Timestep]) -> list[_Frame]:
    frames = []
    for timestep in timesteps:
        cloud = capture.points(timestep)
        if cloud is None or len(cloud.xyz) < 10:
            continue
        driving = capture.driving(timestep)
        points = to_head_frame(cloud, driving.world_from_head)
        spacing = neighbour_spacing(points)
        kept = spacing < OUTLIER_FACTOR * np.median(spacing)
        scale = np.linalg.norm(driving.world_from_head[:3, 0])
        if cloud.normals is None:
            normals = np.zeros_like(points)
        else:
            normals = cloud.normals @ (driving.world_from_head[:3, :3] / scale)
        points, rgb = points[kept], cloud.rgb[kept]
        tree = cKDTree(_descriptor(points, rgb))
        frames.append(_Frame(driving.expr, points, normals[kept], rgb, tree))
    return frames


def registration_loss(
    detail: Params,
    means: jax.Array,  # [N, 3]
    features: jax.Array,  # [N, F]
    matches: Matches,
    *,
    detail_fn: DetailFn,
) -> jax.Array:
    """Robust point-to-plane distance of moved centres to their places, millimetres."""

    def one_frame(expr, source, target, normal):
        start = means[source]
        moved = start + detail_fn(detail, start, features[source], expr).means
        offset = moved - target
        plane = jnp.sum(offset * normal, axis=-1)
        square = plane**2 + POINT_WEIGHT * jnp.sum(offset**2, axis=-1)
        return jnp.mean(1.0 - jnp.exp(-square / (2 * ROBUST_DISTANCE**2)))

    losses = jax.vmap(one_frame)(*matches)
    return jnp.mean(losses) * (ROBUST_DISTANCE * 1e3) ** 2


def _match(moved: np.ndarray, rgb: np.ndarray, frame: _Frame, sources, rng):
    """Nearest neighbours both ways between moved points and a frame's cloud."""
    forward = frame.tree.query(_descriptor(moved, rgb))[1]
    chosen = rng.integers(len(frame.points), size=len(moved))
    back = cKDTree(_descriptor(moved, rgb)).query(
        _descriptor(frame.points[chosen], frame.rgb[chosen])
    )[1]
    ids = np.concatenate([forward, chosen])
    return np.concatenate([sources, sources[back]]), frame.points[ids], frame.normals[ids]


def register_detail(
    detail: Params,
    means: np.ndarray,  # [N, 3] head frame
    rgb: np.ndarray,  # [N, 3]
    features: np.ndarray,  # [N, F]
    capture: Capture,
    timesteps: Sequence[Timestep],
    *,
    detail_fn: DetailFn,
    num_steps: int,
    learning_rate: float = 1e-3,
    seed: int = 0,
    progress: bool = True,
) -> Params:
    """Fits the motion of G to the clouds of some timesteps.

    Returns:
      New weights of G; those given, if no timestep has a cloud.
    """
    frames = _read_frames(capture, timesteps)
    if not frames or num_steps == 0:
        return detail
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps, 0.05))

    @jax.jit
    def move(detail, means, features, exprs):
        def one(expr):
            return means + detail_fn(detail, means, features, expr).means

        return jax.vmap(one)(exprs)

    @jax.jit
    def step(detail, opt_state, means, features, matches):
        loss, grads = jax.value_and_grad(registration_loss)(
            detail, means, features, matches, detail_fn=detail_fn
        )
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(detail, updates), opt_state, loss

    rng = np.random.default_rng(seed)
    opt_state = optimizer.init(detail)
    count = min(NUM_POINTS, len(means))
    first = average = None
    began = time.perf_counter()
    for index in range(num_steps):
        sources = rng.choice(len(means), count, replace=False)
        batch = [frames[i] for i in rng.integers(len(frames), size=FRAMES_PER_STEP)]
        exprs = np.stack([f.expr for f in batch])
        exprs = exprs + CODE_NOISE * rng.standard_normal(exprs.shape, np.float32)
        moved = np.asarray(move(detail, means[sources], features[sources], exprs))
        pairs = [
            _match(m, rgb[sources], f, sources, rng)
            for m, f in zip(moved, batch, strict=True)
        ]
        matches = Matches(exprs, *(np.stack(part) for part in zip(*pairs, strict=True)))
        matches = jax.tree.map(np.float32, matches)._replace(
            source=matches.source.astype(np.int32)
        )
        detail, opt_state, loss = step(detail, opt_state, means, features, matches)
        average = float(loss) if average is None else 0.95 * average + 0.05 * float(loss)
        first = average if first is None else first
        if progress and (index + 1) % 100 == 0:
            rate = (index + 1) / (time.perf_counter() - began)
            print(
                f"registering motion to {len(frames)} clouds: "
                f"{index + 1}/{num_steps}, loss {first:.2f} -> {average:.2f} mm^2, "
                f"{(num_steps - index - 1) / rate:.0f} s left",
                file=sys.stderr,
            )
    return detail
