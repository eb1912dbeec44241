"""Comparisons of the NPHM of 2023 with what the official code has computed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from golden_report import (
    FIT,
    RELATIVE,
    ROOT,
    SLOPE,
    VALUE,
    Golden,
    Tally,
    check_weights,
    recipe_weights,
)

from npga_jax.core import InputError, Params
from npga_jax.nphm import (
    HeadCodes,
    NPHM2023Config,
    nphm2023,
    pair_distance,
    pointwise_jacobian,
    split_code,
)

_SIZES = {
    "G": "lat_dim_glob",
    "L": "lat_dim_loc",
    "hid": "hidden_dim",
    "nl": "num_layers",
    "pos": "hidden_dim_pos",
    "ex": "lat_dim_exp",
    "idd": "lat_dim_id",
    "exh": "hidden_dim_exp",
    "exl": "num_layers_exp",
}

_FIT_STEPS = 3
_FIT_SCANS = 5
"""Scans that a step of the fit draws, with replacement."""
_FIT_RATE = 0.01
_FIT_MAX_DISTANCE = 0.1
_FIT_OFFICIAL_GLOBAL = 64
"""Width of the global code that the fit's penalties assume, whatever it is."""


def check_nphm(golden: Golden, tally: Tally) -> None:
    """Compares everything that an nphm_*.npz holds."""
    cfg = _read_config(golden)
    shapes = {
        f"{part}.{key}": shape
        for part, of_part in nphm2023.official_shapes(cfg).items()
        for key, shape in of_part.items()
    }
    last_layer = f"ex.defDeepSDF.lin{cfg.num_layers_exp}"
    weights = recipe_weights(shapes, int(golden["seed"]), last_layer)
    check_weights(golden, weights, tally)
    states = {
        part: {key[3:]: w for key, w in weights.items() if key[:2] == part}
        for part in ("id", "ex")
    }
    params = nphm2023.params_from_official(states, golden["anchors_mean"], cfg)
    params = jax.tree.map(jnp.asarray, params)
    _check_field(golden, tally, params, cfg)
    _check_deformation(golden, tally, params, cfg)
    if "fit_obs0" in golden:
        _check_fit(golden, tally, params, cfg)


def _read_config(golden: Golden) -> NPHM2023Config:
    sizes = golden.config()
    if sizes.keys() != _SIZES.keys():
        raise InputError(
            f"{golden.path}: its config_json has the entries {sorted(sizes)}; expected "
            f"{sorted(_SIZES)}."
        )
    return NPHM2023Config(**{_SIZES[name]: size for name, size in sizes.items()})


def _check_field(golden, tally, params, cfg) -> None:
    points = jnp.asarray(golden["points"])
    geo = jnp.asarray(golden["lat_geo"][:, 0])
    anchors = nphm2023.predict_anchors(params, cfg, geo)
    tally.close("anchors", "anchors", anchors, golden["anchors"], VALUE)

    def trained(points, geo):
        anchors = nphm2023.predict_anchors(params, cfg, geo)
        return nphm2023.canonical_sdf(params, cfg, points, geo, anchors)

    def evaluated(points, geo):
        # In evaluation mode every network says 1 at the last point.
        anchors = nphm2023.predict_anchors(params, cfg, geo)
        last = jnp.sum(nphm2023.blend_weights(points[:, -1:], anchors), axis=-1)
        return jnp.concatenate([trained(points, geo)[:, :-1], last], axis=1)

    for mode, field in (("train", trained), ("eval", evaluated)):

        def total(points, geo, field=field):
            sdf = field(points, geo)
            return jnp.sum(sdf), sdf

        gradients = jax.grad(total, argnums=(0, 1), has_aux=True)
        (by_points, by_geo), sdf = jax.jit(gradients)(points, geo)
        key = f"{mode}_sdf"
        tally.close(f"values, {mode}()", key, sdf[..., None], golden[key], VALUE)
        key = f"{mode}_dsdf"
        tally.close(f"gradient, {mode}()", key, by_points, golden[key], SLOPE)
        key, group = f"{mode}_dgeo", f"gradient of codes, {mode}()"
        tally.relative(group, key, by_geo[:, None], golden[key], RELATIVE)


def _check_deformation(golden, tally, params, cfg) -> None:
    points = jnp.asarray(golden["points"])
    codes = HeadCodes(*(jnp.asarray(golden[f"lat_{k}"][:, 0]) for k in ("geo", "exp")))
    anchors = nphm2023.predict_anchors(params, cfg, codes.geo)

    def displace(points):
        return nphm2023.deform(params, points, codes, anchors)

    offsets = displace(points) - points
    tally.close("deformation", "ex_offsets", offsets, golden["ex_offsets"], VALUE)
    jacobian = pointwise_jacobian(displace, points)
    group = "jacobian of the deformation"
    tally.close(group, "ex_jac", jacobian, golden["ex_jac"], SLOPE)
    find = jax.jit(nphm2023.find_canonical)
    roots = find(params, jnp.asarray(golden["root_obs"]), codes, anchors)
    group = "canonical points"
    tally.close(group, "root_canon", roots.points, golden["root_canon"], ROOT)
    tally.close(group, "root_diff", roots.residuals[0], golden["root_diff"], ROOT)
    same = np.array_equal(roots.valid, golden["root_valid"])
    tally.same(f"{group}, which are valid", "root_valid", same)


def fit_loss(
    params: Params,
    cfg: NPHM2023Config,
    codes: HeadCodes,
    scans: jax.Array,
    points: jax.Array,
) -> jax.Array:
    """The loss of the official point-cloud fit, at its first steps.

    The penalties split the code where the published sizes would, which the reference's
    reduced sizes do not: the first 64 entries count as global. That of unobserved
    regions looks beyond the end of a reduced code, and is zero.

    Args:
      params: weights.
      cfg: sizes.
      codes: geo [1, D] of the person, exp [scans, E].
      scans: [S] int, which scans are looked at.
      points: [S, P, 3] posed, of those scans.
    """
    num_scans, exp = scans.shape[0], codes.exp[scans]
    geo = jnp.broadcast_to(codes.geo, (num_scans, cfg.lat_dim_geo))
    anchors = nphm2023.predict_anchors(params, cfg, geo)
    roots = nphm2023.find_canonical(params, points, HeadCodes(geo, exp), anchors)
    sdf = nphm2023.canonical_sdf(params, cfg, roots.points, geo, anchors)
    distance = jnp.abs(sdf)
    counted = roots.valid & (distance < _FIT_MAX_DISTANCE)
    surface = jnp.sum(jnp.where(counted, distance, 0.0)) / jnp.sum(counted)
    glob, local = jnp.split(codes.geo, [_FIT_OFFICIAL_GLOBAL], axis=-1)
    return (
        2.0 * surface
        + 0.01 * jnp.mean(jnp.sum(exp**2, axis=-1))
        + 0.25 * jnp.sum(glob**2)
        + 0.05 * jnp.sum(local**2)
        + 5.0 * pair_distance(codes.geo, cfg.places)
    )


def _check_fit(golden, tally, params, cfg) -> None:
    """Three steps of Adam from codes of zero.

    Some pairs of codes are equal but for rounding after the first step; the direction
    of their difference, which the second step follows, is then noise.
    """
    clouds = [golden["fit_obs0"], golden["fit_obs1"]]
    codes = HeadCodes(
        geo=jnp.zeros((1, cfg.lat_dim_geo)),
        exp=jnp.zeros((len(clouds), cfg.lat_dim_exp)),
    )
    optimizer = optax.adam(_FIT_RATE)
    state = optimizer.init(codes)

    @jax.jit
    def step(codes, state, scans, points):
        gradient = jax.grad(lambda c: fit_loss(params, cfg, c, scans, points))(codes)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(codes, updates), state

    for i in range(_FIT_STEPS):
        first = i * (1 + _FIT_SCANS)
        scans = golden[f"fit_draw{first}"]
        drawn = [golden[f"fit_draw{first + 1 + k}"] for k in range(_FIT_SCANS)]
        points = [clouds[scan][rows] for scan, rows in zip(scans, drawn, strict=True)]
        codes, state = step(codes, state, jnp.asarray(scans), jnp.stack(points))
        if i == 0:
            equal = _equal_pairs(codes.geo, cfg)
    group = f"point-cloud fit, {_FIT_STEPS} steps"
    tally.close(group, "fit_lat_exp", codes.exp[:, None], golden["fit_lat_exp"], FIT)
    defined = np.ones(cfg.num_sources, bool)
    defined[: 2 * cfg.num_symm_pairs] = np.repeat(~equal, 2)
    parts = zip(
        split_code(codes.geo, cfg.places),
        split_code(jnp.asarray(golden["fit_lat_geo"][:, 0]), cfg.places),
        strict=True,
    )
    (glob, glob_reference), (local, local_reference) = parts
    tally.close(group, "fit_lat_geo, global", glob, glob_reference, FIT)
    local, local_reference = local[:, defined], local_reference[:, defined]
    tally.close(group, "fit_lat_geo, local", local, local_reference, FIT)
    if equal.any():
        pairs = ", ".join(map(str, np.nonzero(equal)[0]))
        tally.not_checked.append(
            f"fit_lat_geo of the mirror pairs {pairs}, whose codes are equal after the "
            "first step: what they do next is rounding"
        )


def _equal_pairs(geo: jax.Array, cfg: NPHM2023Config) -> np.ndarray:
    _, local = split_code(geo, cfg.places)
    paired = np.asarray(local)[0, : 2 * cfg.num_symm_pairs]
    return np.abs(paired[0::2] - paired[1::2]).max(axis=-1) < 1e-4 * _FIT_RATE
