"""NPHM of 2023, MonoNPHM's predecessor: no colour, and a forward deformation.

Source: Giebenhain et al., Learning Neural Parametric Head Models (CVPR 2023), and its
repository's networks. Its deformation brings canonical points to posed ones, so that
the signed distance of a posed point needs a search for its root. All shapes are for S
heads at once, in NPHM units; layers as in `networks`.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.core import InputError, Params, safe_norm
from npga_jax.nphm.config import NPHMConfig
from npga_jax.nphm.ensemble import source_mirrors, source_types
from npga_jax.nphm.networks import apply_layers, apply_skip_layers, linear, softplus
from npga_jax.nphm.root_finding import (
    RootResult,
    StopRules,
    find_roots,
    with_implicit_gradient,
)

STOP_RULES = StopRules(converged=1e-6, diverged=0.2, max_steps=15)
"""When the search for canonical points ends (NPHM's constants)."""

_BLEND_VARIANCE = 0.01
_EXTRA_SQUARED_DISTANCE = 0.2


@dataclasses.dataclass(frozen=True)
class NPHM2023Config:
    """Sizes; the defaults are those of the published networks."""

    num_anchors: int = 39
    num_symm_pairs: int = 16
    lat_dim_glob: int = 64
    lat_dim_loc: int = 32
    lat_dim_exp: int = 200
    lat_dim_id: int = 32
    """Width that the identity is compressed to for the deformation."""
    hidden_dim: int = 200
    num_layers: int = 4
    hidden_dim_pos: int = 256
    hidden_dim_exp: int = 512
    num_layers_exp: int = 6

    @property
    def num_sources(self) -> int:
        return self.num_anchors + 1

    @property
    def lat_dim_geo(self) -> int:
        return self.lat_dim_glob + self.num_sources * self.lat_dim_loc

    @property
    def places(self) -> NPHMConfig:
        """The layout of anchors, pairs and codes, which MonoNPHM has kept."""
        return NPHMConfig(
            num_anchors=self.num_anchors,
            num_symm_pairs=self.num_symm_pairs,
            lat_dim_glob=self.lat_dim_glob,
            lat_dim_loc_geo=self.lat_dim_loc,
        )


class HeadCodes(NamedTuple):
    """What describes S heads."""

    geo: jax.Array  # [S, lat_dim_geo] identity: [global, local_0, ..., local_extra]
    exp: jax.Array  # [S, lat_dim_exp] expression


def predict_anchors(params: Params, cfg: NPHM2023Config, geo: jax.Array) -> jax.Array:
    """Anchors of each head: [S, lat_dim_geo] -> [S, n, 3], canonical."""
    glob = geo[..., : cfg.lat_dim_glob]
    offsets = apply_layers(params["identity"]["pos"], glob, jax.nn.relu)
    return params["anchors_mean"] + offsets.reshape(*glob.shape[:-1], -1, 3)


def blend_weights(points: jax.Array, anchors: jax.Array) -> jax.Array:
    """Weights of all sources, the extra one last: [S, P, n + 1]; they sum to 1."""
    distances = safe_norm(points[:, :, None] - anchors[:, None])
    near = jnp.exp(-((distances + 1e-5) ** 2) / _BLEND_VARIANCE)
    far = np.exp(-_EXTRA_SQUARED_DISTANCE / _BLEND_VARIANCE)
    weights = jnp.concatenate([near, jnp.full_like(near[..., :1], far)], axis=-1)
    return weights / (jnp.sum(weights, axis=-1, keepdims=True) + 1e-6)


def canonical_sdf(
    params: Params,
    cfg: NPHM2023Config,
    points: jax.Array,
    geo: jax.Array,
    anchors: jax.Array,
) -> jax.Array:
    """Signed distance at canonical points; every network sees every point.

    Args:
      points: [S, P, 3].
      geo: [S, lat_dim_geo].
      anchors: [S, n, 3] of `predict_anchors`.

    Returns:
      [S, P], positive outside. In evaluation mode the official network overwrites the
      last point's value with 1, which was meant for the extra network: not done here.
    """
    types, mirrors = source_types(cfg.places), source_mirrors(cfg.places)
    glob, local = jnp.split(geo, [cfg.lat_dim_glob], axis=-1)
    local = local.reshape(geo.shape[0], cfg.num_sources, cfg.lat_dim_loc)
    origins = jnp.pad(anchors, ((0, 0), (0, 1), (0, 0)))

    def evaluate(layers, mirror, glob, local, origin, points):
        offsets = (points - origin) * jnp.array([mirror, 1.0, 1.0])
        code = jnp.concatenate([glob, local])
        code = jnp.broadcast_to(code, (points.shape[0], code.shape[0]))
        inputs = jnp.concatenate([offsets, code], axis=-1)
        return apply_skip_layers(layers, inputs, softplus)[:, 0]

    over_sources = jax.vmap(evaluate, in_axes=(0, 0, None, 0, 0, None))
    over_heads = jax.vmap(over_sources, in_axes=(None, None, 0, 0, 0, 0))
    layers = jax.tree.map(lambda w: w[types], params["identity"]["geo"])
    values = over_heads(layers, mirrors, glob, local, origins, points)
    return jnp.sum(blend_weights(points, anchors) * values.swapaxes(1, 2), axis=-1)


def deform(
    params: Params,
    points: jax.Array,
    codes: HeadCodes,
    anchors: jax.Array,
) -> jax.Array:
    """Forward deformation: canonical points [S, P, 3] to posed ones [S, P, 3]."""
    layers = params["deformation"]
    flat = anchors.reshape(anchors.shape[0], -1)
    identity = linear(layers["compressor"], jnp.concatenate([codes.geo, flat], axis=-1))
    condition = jnp.concatenate([identity, codes.exp], axis=-1)[:, None]
    condition = jnp.broadcast_to(condition, (*points.shape[:2], condition.shape[-1]))
    inputs = jnp.concatenate([points, condition], axis=-1)
    return points + apply_skip_layers(layers["layers"], inputs, softplus)


def find_canonical(
    params: Params,
    points: jax.Array,
    codes: HeadCodes,
    anchors: jax.Array,
    *,
    rules: StopRules = STOP_RULES,
) -> RootResult:
    """Canonical points that the deformation brings to posed ones.

    Args:
      points: [S, P, 3] posed.
      codes: S heads.
      anchors: [S, n, 3].
      rules: when to stop.

    Returns:
      RootResult [S, P], with implicit gradients.
    """

    def displace(x: jax.Array) -> jax.Array:
        return deform(params, x, codes, anchors)

    roots = find_roots(displace, points, rules=rules)
    return with_implicit_gradient(displace, roots, points)


def official_shapes(cfg: NPHM2023Config) -> dict[str, dict[str, tuple[int, ...]]]:
    """Keys and shapes of the official state dicts, here `id` and `ex`."""

    def skip(name: str, dim: int, hidden: int, num_hidden: int, out: int, *batch: int):
        # What joins at the skip takes its place from the layer before it.
        widths = [dim, *[hidden] * num_hidden]
        outputs = [*[hidden] * num_hidden, out]
        outputs[num_hidden // 2 - 1] -= dim
        shapes = {}
        for i, (a, b) in enumerate(zip(widths, outputs, strict=True)):
            shapes[f"{name}.lin{i}.weight"] = (*batch, b, a)
            shapes[f"{name}.lin{i}.bias"] = (*batch, b)
        return shapes

    n3, types = 3 * cfg.num_anchors, cfg.places.num_types
    sizes = [cfg.lat_dim_glob, cfg.hidden_dim_pos, cfg.hidden_dim_pos, n3]
    identity = skip(
        "ensembled_deep_sdf",
        3 + cfg.lat_dim_glob + cfg.lat_dim_loc,
        cfg.hidden_dim,
        cfg.num_layers,
        1,
        types,
    )
    for i in range(3):
        identity[f"mlp_pos.{2 * i}.weight"] = (sizes[i + 1], sizes[i])
        identity[f"mlp_pos.{2 * i}.bias"] = (sizes[i + 1],)
    code = cfg.lat_dim_id + cfg.lat_dim_exp
    expression = skip("defDeepSDF", 3 + code, cfg.hidden_dim_exp, cfg.num_layers_exp, 3)
    expression["compressor.0.weight"] = (cfg.lat_dim_id, cfg.lat_dim_geo + n3)
    expression["compressor.0.bias"] = (cfg.lat_dim_id,)
    return {"id": identity, "ex": expression}


def params_from_official(
    states: Mapping[str, Mapping[str, np.ndarray]],
    anchors_mean: np.ndarray,
    cfg: NPHM2023Config,
) -> Params:
    """Brings official weights into our form.

    Args:
      states: `id` and `ex`, the `decoder_state_dict` of either checkpoint.
      anchors_mean: [n, 3], NPHM units.
      cfg: sizes.

    Returns:
      {"anchors_mean", "identity": {"pos", "geo"}, "deformation": {"compressor",
      "layers"}}.

    Raises:
      InputError: a weight is missing or has another shape.
    """
    for part, shapes in official_shapes(cfg).items():
        for key, shape in shapes.items():
            if key not in states[part]:
                raise InputError(f"the weights of NPHM have no {part}.{key}.")
            given = np.shape(states[part][key])
            if given != shape:
                raise InputError(
                    f"{part}.{key} has shape {given}; the configuration expects "
                    f"{shape}."
                )

    def layer(part: str, name: str) -> Params:
        weight = np.asarray(states[part][f"{name}.weight"], np.float32)
        bias = np.asarray(states[part][f"{name}.bias"], np.float32)
        return {"w": weight.swapaxes(-1, -2).copy(), "b": bias}

    geo = [layer("id", f"ensembled_deep_sdf.lin{i}") for i in range(cfg.num_layers + 1)]
    moving = [layer("ex", f"defDeepSDF.lin{i}") for i in range(cfg.num_layers_exp + 1)]
    return {
        "anchors_mean": np.asarray(anchors_mean, np.float32),
        "identity": {
            "pos": [layer("id", f"mlp_pos.{2 * i}") for i in range(3)],
            "geo": geo,
        },
        "deformation": {"compressor": layer("ex", "compressor.0"), "layers": moving},
    }
