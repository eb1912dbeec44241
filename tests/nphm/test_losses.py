"""Training losses: against the official code, a plain twin, and finite differences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.nphm import model
from npga_jax.nphm.codes import zero_codes
from npga_jax.nphm.losses import (
    RANDOM_POINTS,
    FieldLossWeights,
    ScanBatch,
    corresp_factor,
    total_loss,
    training_losses,
)
from tests.nphm_case import (
    TINY,
    make_codes,
    make_params,
    make_points,
    open_golden_case,
)

# The widths of the flags differ so that no two kinds of points can be confused.
SIZES = {"surface": 7, "outer": 5, "off": 4, "far": 3, "corresp": 6}


def test_losses_and_their_gradients_agree_with_the_official_code(monkeypatch):
    golden_checks, case, tally = open_golden_case(monkeypatch)
    golden_checks.check_losses(case, tally)
    golden_checks.check_regularizers(case, tally)
    assert tally.passed, "\n".join(tally.text())


def make_batch(num_scans: int = 3, seed: int = 3, **flags) -> ScanBatch:
    """Random scans; a flag that is not given holds for the first two scans."""
    rng = np.random.default_rng(seed)

    def unit(count):
        normals = rng.normal(0, 1, (num_scans, count, 3))
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        return jnp.asarray(normals, jnp.float32)

    def color(count):
        return jnp.asarray(rng.uniform(-1, 1, (num_scans, count, 3)), jnp.float32)

    def points(kind):
        return make_points(num_scans, SIZES[kind], seed=int(rng.integers(1000)))

    given = {
        name: jnp.asarray(flags.get(name, np.arange(num_scans) < 2), jnp.float32)
        for name in ("is_neutral", "has_hair", "has_anchors", "has_corresp")
    }
    return ScanBatch(
        points_surface=points("surface"),
        normals_surface=unit(SIZES["surface"]),
        color_surface=color(SIZES["surface"]),
        points_outer=points("outer"),
        normals_outer=unit(SIZES["outer"]),
        color_outer=color(SIZES["outer"]),
        points_off=points("off"),
        color_off=color(SIZES["off"]),
        points_far=points("far"),
        anchors=make_points(num_scans, TINY.num_anchors, seed=4),
        corresp_posed=points("corresp"),
        corresp_neutral=points("corresp"),
        **given,
    )


_evaluate = jax.jit(model.evaluate_with_gradient, static_argnames=("cfg", "method"))


def plain_losses(params, cfg, batch, codes, random_points) -> dict[str, float]:
    """The definitions, kind by kind and scan by scan, in NumPy."""
    kinds = {
        "surface": batch.points_surface,
        "outer": batch.points_outer,
        "off": batch.points_off,
        "far": batch.points_far,
        "corresp": batch.corresp_posed,
        "random": random_points,
    }
    result, gradient = _evaluate(
        params, cfg, jnp.concatenate([*kinds.values()], axis=1), codes, method="dense"
    )
    ends = np.cumsum([points.shape[1] for points in kinds.values()])[:-1]
    parts = (
        np.split(np.asarray(array), ends, axis=1)
        for array in (result.sdf, result.color, gradient, result.queries)
    )
    values = {}
    for kind, (sdf, color, slope, queries) in zip(
        kinds, zip(*parts, strict=True), strict=True
    ):
        motion = queries.copy()
        motion[..., :3] -= kinds[kind]
        values[kind] = (sdf, color, slope, motion)
    scans = range(batch.points_far.shape[0])
    some = {
        name: [s for s in scans if getattr(batch, name)[s]]
        for name in batch._fields[-4:]
    }
    hair, neutral = some["has_hair"], some["is_neutral"]

    def mean(parts):
        flat = np.concatenate([np.zeros(0), *(np.ravel(part) for part in parts)])
        return flat.mean() if flat.size else 0.0

    def of(kind, what, chosen=scans):
        return [np.asarray(values[kind][what])[s] for s in chosen]

    on_field = ("surface", "outer", "off", "far")
    outer_of_all = of("outer", 0) if hair else []
    norm = np.linalg.norm
    losses = {
        "surf_sdf": mean(np.abs(x) for x in of("surface", 0) + outer_of_all),
        "eikonal": mean(
            np.abs(norm(g, axis=-1) - 1) for kind in on_field for g in of(kind, 2)
        ),
        "space_sdf": mean(np.exp(-10 * np.abs(x)) for x in of("far", 0)),
    }
    errors = [
        norm(g - batch.normals_surface[s], axis=-1)
        for s, g in enumerate(of("surface", 2))
    ]
    for s in hair:
        error = norm(
            np.asarray(values["outer"][2])[s] - batch.normals_outer[s], axis=-1
        )
        errors.append(np.minimum(error, 0.75) / 4)
    losses["normals"] = mean(errors)
    colors = []
    for s in scans:
        colors.append(np.abs(values["surface"][1][s] - batch.color_surface[s]))
        colors.append(np.abs(values["outer"][1][s] - batch.color_outer[s]))
        if s in hair:
            colors.append(np.abs(values["off"][1][s] - batch.color_off[s]) / 5)
    losses["color"] = mean(colors)

    corresp = values["corresp"][3][..., :3] + batch.corresp_posed
    corresp -= batch.corresp_neutral
    losses["corresp"] = mean(corresp[s] ** 2 for s in some["has_corresp"])
    error = np.asarray(result.anchors - batch.anchors)
    losses["anchors"] = mean(error[s] ** 2 for s in some["has_anchors"])
    random = values["random"][3]
    losses["loss_reg_zero"] = mean([random[..., :3] ** 2])
    rest = of("surface", 3, neutral)
    rest += of("outer", 3) + of("off", 3) if neutral else []
    losses["loss_neutral_zero"] = mean(m[..., :3] ** 2 for m in rest)
    anywhere = [*of("surface", 3), *of("far", 3), random]
    losses["hyper"] = mean(np.abs(m[..., 3:]) for m in anywhere)
    losses["hyper"] += 10 * mean(np.abs(m[..., 3:]) for m in rest)
    for name, code in (("shape", codes.geo), ("app", codes.app), ("exp", codes.exp)):
        key = "reg_expr" if name == "exp" else f"reg_{name}"
        losses[key] = np.mean(np.sum(np.asarray(code) ** 2, axis=-1))
    for suffix, code in (("", codes.geo), ("_app", codes.app)):
        local = np.asarray(code)[:, cfg.lat_dim_glob :].reshape(len(scans), -1, 2)
        pairs = [local[:, 0] - local[:, 1], local[:, 2] - local[:, 3]]
        losses[f"symm_dist{suffix}"] = np.mean(norm(pairs, axis=-1))
        losses[f"middle_dist{suffix}"] = np.mean(
            norm(local[:, 4] - local[:, 5], axis=-1)
        )
    return losses


_losses = jax.jit(training_losses, static_argnames=("cfg", "method"))

FLAGS = {
    "some of each": {},
    "none of any": {
        "is_neutral": [0, 0, 0],
        "has_hair": [0, 0, 0],
        "has_anchors": [0, 0, 0],
        "has_corresp": [0, 0, 0],
    },
    "each differs": {
        "is_neutral": [0, 1, 0],
        "has_hair": [0, 0, 1],
        "has_anchors": [1, 1, 1],
        "has_corresp": [1, 0, 1],
    },
}


@pytest.mark.parametrize("name", FLAGS)
def test_losses_agree_with_their_plain_definitions(name):
    params, codes = make_params(TINY), make_codes(TINY, 3)
    batch = make_batch(**FLAGS[name])
    random_points = 2 * make_points(3, RANDOM_POINTS, seed=6)
    found = _losses(params, TINY, batch, codes, random_points)
    expected = plain_losses(params, TINY, batch, codes, random_points)
    assert found.keys() == expected.keys() == set(FieldLossWeights._fields)
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=2e-5, atol=1e-7, err_msg=key)


def _total(params, codes, batch, random_points):
    # Each loss weighs about as much as another.
    weights = FieldLossWeights(*[1.0] * len(FieldLossWeights._fields))
    terms = training_losses(params, TINY, batch, codes, random_points)
    return total_loss(terms, weights)


_total_gradient = jax.jit(jax.value_and_grad(_total, argnums=(0, 1)))


def in_float64(tree):
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), tree)


def test_gradient_agrees_with_finite_differences():
    """Of weights and codes; the normals and the eikonal loss make it second order."""
    with jax.enable_x64(True):
        moving = in_float64((make_params(TINY), make_codes(TINY, 3)))
        random_points = 2 * make_points(3, RANDOM_POINTS, seed=6)
        fixed = in_float64((make_batch(), random_points))
        rng = np.random.default_rng(5)
        direction = jax.tree.map(lambda x: rng.normal(0, 1, x.shape), moving)

        def along(t):
            moved = jax.tree.map(lambda x, d: x + t * d, moving, direction)
            return _total_gradient(*moved, *fixed)[0]

        expected = (along(1e-7) - along(-1e-7)) / 2e-7
        assert abs(expected) > 1e-1
        _, gradients = _total_gradient(*moving, *fixed)
        products = jax.tree.map(lambda g, d: jnp.sum(g * d), gradients, direction)
        np.testing.assert_allclose(sum(jax.tree.leaves(products)), expected, rtol=1e-4)


def test_everything_is_finite_where_norms_are_zero():
    params = make_params(TINY)
    zeros = jax.tree.map(jnp.zeros_like, params)
    zeros["anchors_mean"] = params["anchors_mean"]
    codes = jax.tree.map(lambda c: jnp.stack([c] * 3), zero_codes(TINY))
    batch = make_batch(**FLAGS["none of any"])
    batch = batch._replace(
        points_outer=jnp.stack([params["anchors_mean"][:5]] * 3),
        normals_outer=jnp.zeros((3, 5, 3)),
    )
    with jax.enable_x64(True):
        for weights in (zeros, params):
            args = in_float64((weights, codes, batch, jnp.zeros((3, RANDOM_POINTS, 3))))
            for leaf in jax.tree.leaves(_total_gradient(*args)):
                assert np.isfinite(leaf).all()


def test_there_is_no_loss_for_what_is_absent():
    codes, random_points = make_codes(TINY, 3), jnp.zeros((3, RANDOM_POINTS, 3))
    bare = make_batch()._replace(color_surface=None, color_outer=None, color_off=None)
    absent = {}
    for name, change, batch in (
        ("no colours", {}, bare),
        ("no colour network", {"hidden_dim_app": 0}, make_batch()),
        ("no hyper coordinates", {"num_hyper": 0}, make_batch()),
        ("no two anchors in the middle", {"num_symm_pairs": 3}, make_batch()),
    ):
        cfg = dataclasses.replace(TINY, **change)
        shapes = jax.eval_shape(
            lambda p, c, b, cfg=cfg: training_losses(p, cfg, b, c, random_points),
            make_params(cfg),
            make_codes(cfg, 3) if change else codes,
            batch,
        )
        absent[name] = set(FieldLossWeights._fields) - shapes.keys()
    assert absent == {
        "no colours": {"color"},
        "no colour network": {"color", "reg_app", "symm_dist_app", "middle_dist_app"},
        "no hyper coordinates": {"hyper"},
        "no two anchors in the middle": {"middle_dist", "middle_dist_app"},
    }


def test_total_is_the_weighted_sum_and_correspondences_fade():
    names = FieldLossWeights._fields
    losses = {name: jnp.float32(i + 1) for i, name in enumerate(names)}
    weights = FieldLossWeights(*(0.5 * (i + 1) for i in range(len(names))))
    expected = sum(0.5 * (i + 1) ** 2 for i in range(len(names)))
    assert float(total_loss(losses, weights)) == pytest.approx(expected)
    part = 0.5 * (names.index("corresp") + 1) ** 2
    for epoch, factor in ((750, 1.0), (751, 0.25), (2999, 0.25), (3000, 0.0)):
        assert float(corresp_factor(epoch)) == factor
        total = float(total_loss(losses, weights, epoch))
        assert total == pytest.approx(expected - part * (1 - factor))
