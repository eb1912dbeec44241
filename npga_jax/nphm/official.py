"""Names and shapes of MonoNPHM's official weights, and their place in our pytree."""

from collections.abc import Mapping

import jax
import numpy as np

from npga_jax.core import InputError, Params
from npga_jax.nphm.config import NPHMConfig

StateDict = Mapping[str, np.ndarray]


def _skip_shapes(
    name: str, dim_in: int, hidden: int, num_hidden: int, dim_out: int
) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for i in range(num_hidden + 1):
        fan_in = dim_in if i == 0 else hidden
        if i == num_hidden // 2:
            fan_in += dim_in
        fan_out = dim_out if i == num_hidden else hidden
        shapes[f"{name}.lin{i}.weight"] = (fan_out, fan_in)
        shapes[f"{name}.lin{i}.bias"] = (fan_out,)
    return shapes


def _chain_shapes(name: str, sizes: list[int]) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for i in range(len(sizes) - 1):
        shapes[f"{name}.{2 * i}.weight"] = (sizes[i + 1], sizes[i])
        shapes[f"{name}.{2 * i}.bias"] = (sizes[i + 1],)
    return shapes


def official_shapes(cfg: NPHMConfig) -> dict[str, dict[str, tuple[int, ...]]]:
    """Keys and shapes of the two state dicts, `id_decoder` and `ex_decoder`."""
    n3, glob, width = 3 * cfg.num_anchors, cfg.lat_dim_glob, cfg.hidden_dim_pos
    identity = _chain_shapes("mlp_pos", [glob, width, width, n3])
    geo = [glob + cfg.lat_dim_loc_geo + cfg.query_dim]
    geo += [cfg.hidden_dim_geo] * cfg.num_layers_geo + [1]
    app = [glob + cfg.lat_dim_loc_app + cfg.bottleneck_dim]
    app += [cfg.hidden_dim_app] * cfg.num_layers_app + [3]
    for t in range(cfg.num_types):
        identity |= _chain_shapes(f"deepSDFensemble.layers.{t}.layers", geo)
        if cfg.has_color:
            identity |= _chain_shapes(f"aggr_app.layers.{t}.layers", app)
    if cfg.has_color:
        narrow = cfg.bottleneck_dim
        for i, fan_in in ((1, cfg.hidden_dim_geo), (2, narrow)):
            # The missing letter is the official name's.
            name = f"communcation_bottleneck{i}"
            identity[f"{name}.weight"] = (narrow, fan_in)
            identity[f"{name}.bias"] = (narrow,)
    expression = {
        "compressor.0.weight": (cfg.lat_dim_id, cfg.lat_dim_geo + n3),
        "compressor.0.bias": (cfg.lat_dim_id,),
        **_skip_shapes(
            "defDeepSDF",
            3 + cfg.lat_dim_id + cfg.lat_dim_exp,
            cfg.hidden_dim_exp,
            cfg.num_layers_exp,
            3 + cfg.num_hyper,
        ),
    }
    return {"id_decoder": identity, "ex_decoder": expression}


def _layer(state: StateDict, name: str) -> dict[str, np.ndarray]:
    weight = np.asarray(state[f"{name}.weight"], np.float32)
    return {"w": weight.T.copy(), "b": np.asarray(state[f"{name}.bias"], np.float32)}


def _count(state: StateDict, name: str) -> int:
    return sum(k.startswith(f"{name}.") and k.endswith(".weight") for k in state)


def _chain(state: StateDict, name: str) -> list[dict[str, np.ndarray]]:
    return [_layer(state, f"{name}.{2 * i}") for i in range(_count(state, name))]


def _skip(state: StateDict, name: str) -> list[dict[str, np.ndarray]]:
    return [_layer(state, f"{name}.lin{i}") for i in range(_count(state, name))]


def check_state_dicts(states: Mapping[str, StateDict], cfg: NPHMConfig) -> None:
    """Compares keys, shapes and numbers with what the configuration asks for.

    Raises:
      InputError: naming missing and unknown keys, wrong shapes and bad numbers.
    """
    problems = []
    for part, shapes in official_shapes(cfg).items():
        state = states[part]
        problems += [f"{part}.{key} is missing" for key in shapes.keys() - state.keys()]
        problems += [f"{part}.{key} is unknown" for key in state.keys() - shapes.keys()]
        for key in shapes.keys() & state.keys():
            given, expected = np.shape(state[key]), shapes[key]
            if given != expected:
                problems.append(f"{part}.{key} has shape {given}, expected {expected}")
            elif not np.issubdtype(np.asarray(state[key]).dtype, np.floating):
                dtype = np.asarray(state[key]).dtype
                problems.append(f"{part}.{key} has dtype {dtype}, expected floats")
            elif not np.isfinite(np.asarray(state[key], np.float32)).all():
                problems.append(f"{part}.{key} holds NaN or infinite values")
    if problems:
        problems.sort()
        more = len(problems) - 20
        listed = "; ".join(problems[:20]) + (f"; and {more} more" if more > 0 else "")
        raise InputError(
            f"the weights do not fit the configuration beside them: {listed}."
        )


def params_from_official(
    states: Mapping[str, StateDict], anchors_mean: np.ndarray, cfg: NPHMConfig
) -> Params:
    """Brings official weights into the form of `model.init_params`.

    Args:
      states: `id_decoder` and `ex_decoder`, official keys to arrays.
      anchors_mean: [n, 3], which no official checkpoint holds.
      cfg: sizes.

    Raises:
      InputError: keys, shapes or numbers are not as the configuration says.
    """
    check_state_dicts(states, cfg)
    identity, expression = states["id_decoder"], states["ex_decoder"]
    if np.shape(anchors_mean) != (cfg.num_anchors, 3):
        raise InputError(
            f"the mean anchors have shape {np.shape(anchors_mean)}; the configuration "
            f"expects ({cfg.num_anchors}, 3)."
        )

    def stacked(name: str) -> list[dict[str, np.ndarray]]:
        networks = [
            _chain(identity, f"{name}.layers.{t}.layers") for t in range(cfg.num_types)
        ]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *networks)

    ours = {"pos": _chain(identity, "mlp_pos"), "geo": stacked("deepSDFensemble")}
    if cfg.has_color:
        ours["app"] = stacked("aggr_app")
        ours["bottleneck"] = [
            _layer(identity, f"communcation_bottleneck{i}") for i in (1, 2)
        ]
    return {
        "anchors_mean": np.asarray(anchors_mean, np.float32),
        "identity": ours,
        "deformation": {
            "compressor": _layer(expression, "compressor.0"),
            "layers": _skip(expression, "defDeepSDF"),
        },
    }


def official_from_params(
    params: Params, cfg: NPHMConfig
) -> dict[str, dict[str, np.ndarray]]:
    """The inverse of `params_from_official`: state dicts with official keys."""
    identity, expression = {}, {}

    def put(state: dict[str, np.ndarray], name: str, layer: Params) -> None:
        state[f"{name}.weight"] = np.asarray(layer["w"]).T.copy()
        state[f"{name}.bias"] = np.asarray(layer["b"])

    ours = params["identity"]
    for i, layer in enumerate(ours["pos"]):
        put(identity, f"mlp_pos.{2 * i}", layer)
    branches = [("deepSDFensemble", "geo")]
    if cfg.has_color:
        branches.append(("aggr_app", "app"))
        for i, layer in enumerate(ours["bottleneck"], start=1):
            put(identity, f"communcation_bottleneck{i}", layer)
    for name, branch in branches:
        for i, layer in enumerate(ours[branch]):
            for t in range(cfg.num_types):
                one = {"w": layer["w"][t], "b": layer["b"][t]}
                put(identity, f"{name}.layers.{t}.layers.{2 * i}", one)
    put(expression, "compressor.0", params["deformation"]["compressor"])
    for i, layer in enumerate(params["deformation"]["layers"]):
        put(expression, f"defDeepSDF.lin{i}", layer)
    return {"id_decoder": identity, "ex_decoder": expression}
