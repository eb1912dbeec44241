"""Comparisons of MonoNPHM with what the official code has computed."""

import contextlib
from collections.abc import Iterator
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from golden_case import Case, join_states, open_mono, read_codes
from golden_report import (
    RELATIVE,
    ROOT,
    SECOND_ORDER,
    SLOPE,
    VALUE,
    Golden,
    Tally,
)

from npga_jax.core import Params, safe_norm
from npga_jax.nphm import (
    Codes,
    EnsembleMethod,
    NPHMConfig,
    canonical_field,
    evaluate_points,
    field,
    find_edges,
    invert_deformation,
    losses,
    middle_distance,
    model,
    official,
    pair_distance,
    pointwise_jacobian,
    split_code,
    zero_codes,
)

METHODS = ("blocks", "dense")

_COLOR_MIX = (1.0, 2.0, 3.0)
"""Weights of the colours in the quantity whose gradient the goldens hold."""

_BATCH_NAMES = {
    "points_surface": "points_surface",
    "normals_surface": "normals_surface",
    "color_surface": "color_surface",
    "points_outer": "points_surface_outer",
    "normals_outer": "normals_surface_outer",
    "color_outer": "color_surface_outer",
    "points_off": "points_off_surface",
    "color_off": "color_off_surface",
    "points_far": "sup_grad_far",
    "anchors": "gt_anchors",
    "corresp_posed": "corresp_posed",
    "corresp_neutral": "corresp_neutral",
    "is_neutral": "is_neutral",
    "has_hair": "supervise_hair",
    "has_anchors": "has_anchors",
    "has_corresp": "has_corresp",
}
"""Our names of what a batch of the training holds, and the official ones."""


def check_mono(golden: Golden, tally: Tally) -> None:
    """Compares everything that a mono_*.npz holds."""
    case = open_mono(golden, tally)
    for method in METHODS:
        check_evaluation(case, tally, method)
        check_code_gradients(case, tally, method)
        check_canonical(case, tally, method)
        check_batches(case, tally, method)
    check_streaming(case, tally)
    check_deformation(case, tally)
    check_regularizers(case, tally)
    check_losses(case, tally)
    check_roots(case, tally)


_evaluate_with_gradient = jax.jit(
    model.evaluate_with_gradient, static_argnames=("cfg", "method")
)


def check_evaluation(case: Case, tally: Tally, method: EnsembleMethod) -> None:
    """The model at posed points, with the gradient, and with codes of zero."""
    golden, cfg, params, codes = case
    points = jnp.asarray(golden["points"])
    result, gradient = _evaluate_with_gradient(
        params, cfg, points, codes, method=method
    )
    values = {
        "sdf": result.sdf[..., None],
        "color": result.color,
        "anchors": result.anchors,
        "offsets": result.queries[..., :3] - points,
        "queries_can": result.queries,
    }
    if cfg.num_hyper:
        values["hyper_coords"] = result.queries[..., 3:]
    for prefix, kind in (("out_", ""), ("f64_out_", " (float64 reference)")):
        if f"{prefix}sdf" not in golden:
            continue
        for name, value in values.items():
            key = prefix + name
            tally.close(f"values, {method}{kind}", key, value, golden[key], VALUE)
        key = f"{prefix}gradient"
        tally.close(f"gradient, {method}{kind}", key, gradient, golden[key], SLOPE)
    zeros = jax.tree.map(lambda code: code[None], zero_codes(cfg))
    result, _ = _evaluate_with_gradient(params, cfg, points, zeros, method=method)
    group = f"values of zero codes, {method}"
    tally.close(group, "sdf", result.sdf[..., None], golden["zero_sdf"], VALUE)
    tally.close(group, "color", result.color, golden["zero_color"], VALUE)
    tally.close(group, "can", result.queries, golden["zero_can"], VALUE)
    tally.close(group, "anchors", result.anchors, golden["zero_anchors"], VALUE)


@partial(jax.jit, static_argnames=("cfg", "method"))
def _code_gradients(params, cfg, points, codes, sdf_weights, color_weights, method):
    """Of a weighted sum of values, and of the mean error of the gradient's length."""

    def weighted(codes):
        result = model.evaluate(params, cfg, points, codes, method=method)
        sdf = jnp.sum(result.sdf[..., None] * sdf_weights)
        return sdf + jnp.sum(result.color * color_weights)

    def eikonal(codes):
        _, gradient = model.evaluate_with_gradient(
            params, cfg, points, codes, method=method, with_color=False
        )
        return jnp.mean(jnp.abs(safe_norm(gradient) - 1))

    return jax.grad(weighted)(codes), jax.value_and_grad(eikonal)(codes)


def check_code_gradients(case: Case, tally: Tally, method: EnsembleMethod) -> None:
    """Gradients of codes, first and second order."""
    golden, cfg, params, codes = case
    first, (eikonal, second) = _code_gradients(
        params,
        cfg,
        golden["points"],
        codes,
        golden["w_sdf"],
        golden["w_color"],
        method,
    )
    for name in Codes._fields:
        for prefix, kind in (("", ""), ("f64_", " (float64 reference)")):
            key, ours = f"{prefix}dL_d{name}", getattr(first, name)[:, None]
            group = f"gradient of codes, {method}{kind}"
            tally.relative(group, key, ours, golden[key], RELATIVE)
    group = f"gradient of codes, second order, {method}"
    tally.relative(group, "eik", eikonal, golden["eik"], SECOND_ORDER)
    for name in ("geo", "exp"):
        key, ours = f"deik_d{name}", getattr(second, name)[:, None]
        tally.relative(group, key, ours, golden[key], SECOND_ORDER)


@partial(jax.jit, static_argnames=("cfg", "method"))
def _canonical(params, cfg, queries, codes, method):
    """The field, and gradients of the distance and of a mix of colours."""
    anchors = model.predict_anchors(params, cfg, codes.geo)

    def field(queries):
        result = canonical_field(params, cfg, queries, codes, anchors, method=method)
        assert result.color is not None  # Goldens are of models with colours.
        color = jnp.sum(result.color * jnp.array(_COLOR_MIX))
        return (jnp.sum(result.sdf), color), result

    _, pullback, result = jax.vjp(field, queries, has_aux=True)
    (distance_gradient,) = pullback((1.0, 0.0))
    (color_gradient,) = pullback((0.0, 1.0))
    return result, distance_gradient, color_gradient


def check_canonical(case: Case, tally: Tally, method: EnsembleMethod) -> None:
    """The field at canonical points: on the anchors, off them, and not deformed."""
    golden, cfg, params, codes = case
    queries = jnp.asarray(golden["can_points"])
    count = queries.shape[1]
    rest = model.rest_queries(jnp.asarray(golden["points"]), cfg)
    result, distance_gradient, color_gradient = _canonical(
        params, cfg, jnp.concatenate([queries, rest], axis=1), codes, method
    )
    values = {"sdf": result.sdf[..., None], "color": result.color}
    for name, value in values.items():
        group, key = f"canonical values, {method}", f"can_{name}"
        tally.close(group, key, value[:, :count], golden[key], VALUE)
        group, key = f"values without deformation, {method}", f"ignoredef_{name}"
        tally.close(group, key, value[:, count:], golden[key], VALUE)
    key, ours = "can_dsdf", distance_gradient[:, :count]
    tally.close(f"canonical gradient, {method}", key, ours, golden[key], SLOPE)
    key, ours = "can_dcolor123", color_gradient[:, :count]
    group = f"canonical gradient of colours, {method}"
    tally.close(group, key, ours, golden[key], sum(_COLOR_MIX) * SLOPE)


_source_tables = field.source_tables


def _mixed_tables(params: Params, cfg: NPHMConfig, codes: Codes) -> field.SourceTables:
    """`field.source_tables` with the mistake of the official training.

    There the codes of a batch are tiled where they should be repeated: source a of head
    b, row b * num_sources + a, reads the global appearance code of head (row mod S).
    """
    tables = _source_tables(params, cfg, codes)
    glob, _ = split_code(codes.app, cfg)
    rows = jnp.arange(len(glob) * cfg.num_sources) % len(glob)
    wrong = glob[rows].reshape(len(glob), cfg.num_sources, -1) - glob[:, None]
    weights = params["identity"]["app"][0]["w"][:, : glob.shape[-1]]
    change = jnp.einsum("ski,kio->sko", wrong, weights[field.source_types(cfg)])
    assert tables.app is not None  # Goldens are of models with colours.
    return tables._replace(app=tables.app + change)


@contextlib.contextmanager
def _official_mistake() -> Iterator[None]:
    """What is traced within mixes the codes of a batch as the official code does."""
    with mock.patch.object(field, "source_tables", _mixed_tables):
        yield


@partial(jax.jit, static_argnames=("cfg", "method"))
def _two_ways(params, cfg, points, codes, method):
    """The model, and its colours with the codes of the batch mixed."""
    with _official_mistake():
        mixed = model.evaluate(params, cfg, points, codes, method=method)
    result = model.evaluate(params, cfg, points, codes, method=method)
    return result, mixed.color


def check_batches(case: Case, tally: Tally, method: EnsembleMethod) -> None:
    """Two heads at once, the right way and with the official mistake."""
    golden, cfg, params, _ = case
    codes, points = read_codes(golden, "b2_lat"), jnp.asarray(golden["b2_points"])
    result, mixed = _two_ways(params, cfg, points, codes, method)
    sdf, group = result.sdf[..., None], f"two heads at once, {method}"
    tally.close(group, "b2_sdf", sdf, golden["b2_sdf"], VALUE)
    tally.close(group, "b2_sdf_single", sdf, golden["b2_sdf_single"], VALUE)
    tally.close(group, "b2_anchors", result.anchors, golden["b2_anchors"], VALUE)
    key = "b2_color_single"
    tally.close(group, key, result.color, golden[key], VALUE)
    key = "b2_color_official"
    tally.close(f"{group}, official mistake", key, mixed, golden[key], VALUE)


def check_streaming(case: Case, tally: Tally) -> None:
    """The evaluation of many points of one head."""
    golden, cfg, params, codes = case
    head = model.HeadModel(cfg, params)
    one = jax.tree.map(lambda code: code[0], codes)
    # The reference counts every neighbour, however small its weight.
    result = evaluate_points(
        head,
        golden["points"][0],
        one,
        with_color=True,
        with_gradient=True,
        min_weight=0.0,
    )
    group = "values, streaming"
    tally.close(group, "out_sdf", result.sdf, golden["out_sdf"][0, :, 0], VALUE)
    tally.close(group, "out_color", result.color, golden["out_color"][0], VALUE)
    key = "out_gradient"
    tally.close("gradient, streaming", key, result.gradient, golden[key][0], SLOPE)
    result = evaluate_points(
        head, golden["points"][0], one, posed=False, with_color=True, min_weight=0.0
    )
    group = "values without deformation, streaming"
    reference = golden["ignoredef_sdf"][0, :, 0]
    tally.close(group, "ignoredef_sdf", result.sdf, reference, VALUE)
    key = "ignoredef_color"
    tally.close(group, key, result.color, golden[key][0], VALUE)


def check_deformation(case: Case, tally: Tally) -> None:
    """What the deformation is made of, and the edges."""
    golden, cfg, params, codes = case
    anchors = model.predict_anchors(params, cfg, codes.geo)
    condition = model.deformation_condition(params, cfg, codes, anchors)
    compressed = condition[:, : cfg.lat_dim_id]
    group = "compressed identity"
    tally.close(group, "compressed", compressed, golden["compressed"], VALUE)

    def displace(points):
        return model.deform(params, cfg, points, codes, anchors)[..., :3]

    jacobian = pointwise_jacobian(displace, jnp.asarray(golden["points"]))
    tally.close("jacobian of the deformation", "jac", jacobian, golden["jac"], SLOPE)
    edges = find_edges(jnp.asarray(golden["can_points"]), anchors, cfg)
    same = np.array_equal(edges.sources[0], golden["can_knn"])
    tally.same("neighbours", "can_knn", same)
    key = "can_alpha"
    tally.close("blending weights", key, edges.weights[0], golden[key], VALUE)


def check_regularizers(case: Case, tally: Tally) -> None:
    """Penalties on codes."""
    golden, cfg, _, codes = case
    group = "regularisers"
    for name in ("geo", "app"):
        code = getattr(codes, name)
        glob, local = (jnp.sum(part**2) for part in split_code(code, cfg))
        pairs, middle = pair_distance(code, cfg), middle_distance(code, cfg)
        for key, value in (
            (f"reg_reg_global_{name}", glob),
            (f"reg_reg_loc_{name}", local),
            (f"reg_symm_dist_{name}", pairs),
            (f"symm_{name}", pairs),
            (f"middle_{name}", middle),
        ):
            tally.relative(group, key, value, golden[key], RELATIVE)


@partial(jax.jit, static_argnames="cfg")
def _losses(params: Params, cfg, batch, codes, random_points, epoch):
    def total(params, codes):
        with _official_mistake():
            terms = losses.training_losses(params, cfg, batch, codes, random_points)
        return losses.total_loss(terms, epoch=epoch), terms

    return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(params, codes)


def check_losses(case: Case, tally: Tally) -> None:
    """All losses of a batch of the training, and their gradients."""
    golden, cfg, params, _ = case
    batch = golden.under("loss_batch/")
    batch = losses.ScanBatch(
        **{ours: jnp.asarray(batch[name]) for ours, name in _BATCH_NAMES.items()}
    )
    codes = read_codes(golden, "loss_lat")
    for epoch in (0, 800):
        (total, terms), (weight_gradient, code_gradient) = _losses(
            params, cfg, batch, codes, jnp.asarray(golden["loss_rand"]), epoch
        )
        # The official term has its schedule in it, ours leaves that to the total.
        terms["corresp"] *= losses.corresp_factor(epoch)
        terms |= {
            f"dtotal_d{k}": v[:, None] for k, v in code_gradient._asdict().items()
        }
        terms["total"] = total
        states = official.official_from_params(weight_gradient, cfg)
        norms = {k: np.linalg.norm(v) for k, v in join_states(states).items()}
        for name, reference in golden.under(f"loss_e{epoch}/").items():
            key, group = f"loss_e{epoch}/{name}", "losses"
            if name.startswith("dtotal_"):
                group = "gradient of codes, total loss"
            if name.startswith("gradnorm/"):
                group = "gradient of weights, total loss (norms)"
                terms[name] = norms.get(name.removeprefix("gradnorm/"), np.nan)
            ours = terms.get(name, np.nan)
            tally.relative(group, key, ours, reference, RELATIVE)


def check_roots(case: Case, tally: Tally) -> None:
    """Posed anchors: where they are, how they follow the codes, from many starts."""
    golden, cfg, params, codes = case
    targets = jnp.asarray(golden["root_w"])

    def posed(codes):
        anchors = model.predict_anchors(params, cfg, codes.geo)
        roots = invert_deformation(params, cfg, anchors, codes, anchors)
        return jnp.sum(roots.points * targets), (roots, anchors)

    (_, (roots, anchors)), gradient = jax.value_and_grad(posed, has_aux=True)(codes)
    _compare_roots(golden, tally, "posed anchors", roots, "root_", "")
    group = "gradient of codes, posed anchors"
    for name in ("geo", "exp"):
        key, ours = f"root_d{name}", getattr(gradient, name)[:, None]
        tally.relative(group, key, ours, golden[key], RELATIVE)
    # The official start and target of the flat list's entries come from different
    # anchors: starts lie anchor by anchor, targets round by round.
    noise = golden["rootm_noise"]
    starts = (anchors[:, :, None] + noise).reshape(1, -1, 3)
    targets = jnp.tile(anchors, (1, noise.shape[2], 1))
    roots = invert_deformation(params, cfg, targets, codes, anchors, starts)
    group = "posed anchors, many starts"
    _compare_roots(golden, tally, group, roots, "rootm_", "_flat")


def _compare_roots(golden, tally, group, roots, prefix, suffix) -> None:
    key = f"{prefix}posed{suffix}"
    tally.close(group, key, roots.points, golden[key], ROOT)
    key = f"{prefix}diff{suffix}"
    tally.close(group, key, roots.residuals[0], golden[key], ROOT)
    key = f"{prefix}valid{suffix}"
    valid = np.asarray(roots.valid).reshape(golden[key].shape)
    tally.same(f"{group}, which are valid", key, np.array_equal(valid, golden[key]))
