"""The NPHM of 2023: against the official code, and its own properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.nphm import nphm2023
from npga_jax.nphm.nphm2023 import HeadCodes, NPHM2023Config
from tests.nphm_case import GOLDENS, ROOT, make_points, needs_goldens

TINY = NPHM2023Config(
    num_anchors=6,
    num_symm_pairs=3,
    lat_dim_glob=3,
    lat_dim_loc=2,
    lat_dim_exp=4,
    lat_dim_id=3,
    hidden_dim=20,
    num_layers=4,
    hidden_dim_pos=5,
    hidden_dim_exp=24,
    num_layers_exp=4,
)


@needs_goldens
def test_networks_roots_and_fit_agree_with_the_official_code(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "dev")
    import golden_checks_2023

    golden = golden_checks_2023.Golden(GOLDENS / "nphm_reduced_seed11.npz")
    tally = golden_checks_2023.Tally()
    golden_checks_2023.check_nphm(golden, tally)
    assert tally.passed, "\n".join(tally.text())
    assert not golden.unread


def make_states(seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    states = {
        part: {
            key: (rng.normal(0, 1, shape) / np.sqrt(shape[-1])).astype(np.float32)
            for key, shape in shapes.items()
        }
        for part, shapes in nphm2023.official_shapes(TINY).items()
    }
    for key in states["ex"]:
        if "lin4" in key:
            states["ex"][key] *= 0.05
    return states


def make_case(num_heads: int = 2):
    rng = np.random.default_rng(1)
    # Anchors and their mirror images, within the reach of one another's weights.
    left = rng.uniform(-0.15, 0.15, (3, 3))
    anchors = np.stack([left, left * [-1, 1, 1]], axis=1).reshape(6, 3)
    params = nphm2023.params_from_official(make_states(), anchors, TINY)
    params = jax.tree.map(jnp.asarray, params)
    codes = HeadCodes(
        *(
            jnp.asarray(rng.normal(0, 0.3, (num_heads, d)), jnp.float32)
            for d in (TINY.lat_dim_geo, TINY.lat_dim_exp)
        )
    )
    return params, codes


def test_weights_are_shares_and_far_away_only_the_extra_network_speaks():
    anchors = make_points(1, 6) * 0.2
    near = nphm2023.blend_weights(anchors + 0.02, anchors)
    np.testing.assert_allclose(near.sum(-1), 1, atol=1e-3)
    np.testing.assert_array_equal(jnp.argmax(near[0], axis=-1), np.arange(6))
    far = nphm2023.blend_weights(jnp.full((1, 1, 3), 5.0), anchors)
    np.testing.assert_array_equal(far[0, 0, :-1], 0)
    assert 0 < float(far[0, 0, -1]) < 0.01


def test_a_mirrored_face_has_a_mirrored_field():
    params, codes = make_case(1)
    anchors = params["anchors_mean"][None]
    glob, local = codes.geo[:, :3], codes.geo[:, 3:].reshape(1, 7, 2)
    swapped = local[:, jnp.array([1, 0, 3, 2, 5, 4, 6])].reshape(1, -1)
    mirrored = jnp.concatenate([glob, swapped], axis=-1)
    points = make_points(1, 40) * 0.4
    flipped = points * jnp.array([-1.0, 1.0, 1.0])
    sdf = nphm2023.canonical_sdf(params, TINY, points, codes.geo, anchors)
    other = nphm2023.canonical_sdf(params, TINY, flipped, mirrored, anchors)
    # The extra network, which has no partner, weighs nothing here.
    weights = nphm2023.blend_weights(points, anchors)
    assert float(weights[..., -1].max()) < 1e-4
    np.testing.assert_allclose(sdf, other, atol=1e-4)
    unswapped = nphm2023.canonical_sdf(params, TINY, flipped, codes.geo, anchors)
    assert np.abs(sdf - unswapped).max() > 1e-2


def test_canonical_points_are_deformed_to_the_posed_ones():
    params, codes = make_case()
    anchors = nphm2023.predict_anchors(params, TINY, codes.geo)
    posed = make_points(2, 30)
    find = jax.jit(nphm2023.find_canonical)
    roots = find(params, posed, codes, anchors)
    assert roots.valid.all()
    back = nphm2023.deform(params, roots.points, codes, anchors)
    np.testing.assert_allclose(back, posed, atol=2e-6)
    assert np.abs(roots.points - posed).max() > 1e-2


def test_gradient_of_a_posed_distance_agrees_with_finite_differences():
    """What a fit to posed points descends: codes act on the field and on the root."""
    with jax.enable_x64(True):
        args = jax.tree.map(
            lambda x: jnp.asarray(np.asarray(x), jnp.float64),
            (*make_case(), make_points(2, 6) * 0.4),
        )
        params, codes, posed = args
        rng = np.random.default_rng(2)
        direction = jax.tree.map(lambda x: rng.normal(0, 1, x.shape), (codes, posed))
        rules = nphm2023.STOP_RULES._replace(converged=1e-12, max_steps=50)

        @jax.jit
        def along(t):
            moved = jax.tree.map(lambda x, d: x + t * d, (codes, posed), direction)
            moved_codes, points = moved
            anchors = nphm2023.predict_anchors(params, TINY, moved_codes.geo)
            roots = nphm2023.find_canonical(
                params, points, moved_codes, anchors, rules=rules
            )
            sdf = nphm2023.canonical_sdf(
                params, TINY, roots.points, moved_codes.geo, anchors
            )
            return jnp.sum(jnp.sin(2 * sdf))

        expected = (along(1e-6) - along(-1e-6)) / 2e-6
        assert abs(expected) > 1e-1
        np.testing.assert_allclose(jax.jit(jax.grad(along))(0.0), expected, rtol=1e-5)


def test_weights_that_do_not_fit_are_named():
    states = make_states()
    del states["id"]["mlp_pos.2.bias"]
    with pytest.raises(InputError, match=r"id\.mlp_pos\.2\.bias"):
        nphm2023.params_from_official(states, np.zeros((6, 3)), TINY)
    states = make_states()
    states["ex"]["compressor.0.bias"] = np.zeros(7, np.float32)
    with pytest.raises(InputError, match=r"compressor\.0\.bias has shape \(7,\)"):
        nphm2023.params_from_official(states, np.zeros((6, 3)), TINY)
