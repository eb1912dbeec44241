"""The data structures that cross module borders: NamedTuples of arrays.

Letters: N Gaussians, C cameras, B views in a batch, K spherical-harmonic bases,
F features, E expression code, M tile intersections, H and W the image.
Frames: *head* is the canonical frame of the head model (metres here), *world* is the
capture's frame (metres), cameras follow OpenCV (x right, y down, z forward).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

Array = jax.Array | np.ndarray
"""Of what lies on the host before a program takes it, and on the device after."""

Params = Any
"""Nested dicts and lists of arrays: the weights of a network."""


class Gaussians(NamedTuple):
    """Canonical Gaussians in the head frame: raw parameters, padded to a capacity."""

    means: jax.Array  # [N, 3] head frame, metres
    quats: jax.Array  # [N, 4] wxyz, any norm
    log_scales: jax.Array  # [N, 3] log metres
    logit_opacities: jax.Array  # [N]
    sh: jax.Array  # [N, K, 3] spherical harmonics, degree 0 first
    features: jax.Array  # [N, F] latent, read by the deformation networks
    bindings: (
        jax.Array
    )  # [N, 2] shares of skull and jaw in what carries each; not trained


class AvatarParams(NamedTuple):
    """Everything that is trained."""

    gaussians: Gaussians
    forward: Params  # of F, the forward motion; empty when it has no weights
    detail: Params  # of G, the detail network; likewise
    screen: Params  # of the screen-space network; likewise


class Splats(NamedTuple):
    """Activated Gaussians, ready for the rasterizer."""

    means: jax.Array  # [N, 3]
    quats: jax.Array  # [N, 4] wxyz, any norm
    scales: jax.Array  # [N, 3] standard deviations, same unit as means
    opacities: jax.Array  # [N] in [0, 1]; 0 for dead slots
    colors: jax.Array  # [N, K, 3] SH coefficients, or [N, F] channels


class RenderOutput(NamedTuple):
    """What the rasterizer returns for C cameras."""

    colors: jax.Array  # [C, H, W, F], background included
    features: jax.Array | None  # [C, H, W, D], on black; None unless given
    alphas: jax.Array  # [C, H, W]
    depths: jax.Array | None  # [C, H, W] alpha-weighted mean of z, 0 where empty
    num_isects: jax.Array  # [C] int32, intersections wanted
    num_dropped: jax.Array  # [C] int32, intersections that exceeded `max_isects`
    num_invalid: jax.Array  # [C] int32, Gaussians culled for being NaN or infinite


class Batch(NamedTuple):
    """B views of one timestep, as the loader delivers them."""

    rgb: Array  # [B, H, W, 3] uint8, the camera's background still in it
    alpha: Array  # [B, H, W] uint8, the matte
    parts: Array  # [B, H, W] uint8, 255 in eyes and mouth, 0 elsewhere
    viewmats: Array  # [B, 4, 4] world-to-camera
    Ks: Array  # [B, 3, 3] pixels
    world_from_head: Array  # [4, 4] rotation * uniform scale, and translation
    expr: Array  # [E] expression code


class Graph(NamedTuple):
    """Neighbours of every Gaussian; a dead one has itself."""

    ids: jax.Array  # [N, K] int32
    weights: jax.Array  # [N, K] sum to 1; zero for dead ones


RasterizeFn = Callable[..., RenderOutput]
"""`rasterizer.rasterization` or anything with its signature."""
