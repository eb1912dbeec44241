"""Meshes from few evaluations are those of the full grid."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.measure import marching_cubes

from npga_jax.core.errors import InputError
from npga_jax.nphm import meshing
from npga_jax.nphm.codes import Codes
from npga_jax.nphm.config import NPHMConfig
from npga_jax.nphm.field import canonical_field
from npga_jax.nphm.meshing import extract_mesh, head_mesh
from npga_jax.nphm.model import (
    HeadModel,
    evaluate,
    init_params,
    predict_anchors,
    rest_queries,
)

BOX = ((-1.0, -1.1, -0.9), (1.0, 0.9, 1.2))
CFG = NPHMConfig(
    num_anchors=5,
    num_symm_pairs=2,
    num_neighbors=4,
    lat_dim_glob=4,
    lat_dim_loc_geo=3,
    lat_dim_loc_app=3,
    lat_dim_exp=4,
    lat_dim_id=3,
    hidden_dim_geo=8,
    num_layers_geo=2,
    hidden_dim_app=8,
    num_layers_app=2,
    hidden_dim_exp=8,
    num_layers_exp=2,
    hidden_dim_pos=8,
    bottleneck_dim=3,
)


class Counted:
    """A field that knows at how many points it was evaluated."""

    def __init__(self, field):
        self.field, self.count = field, 0

    def __call__(self, points):
        assert points.dtype == np.float32
        self.count += len(points)
        return self.field(points)


def sphere(points, center=(0.1, 0.0, 0.05), radius=0.6):
    return np.linalg.norm(points - np.float32(center), axis=1) - np.float32(radius)


def box(points):
    q = np.abs(points - np.float32(0.03)) - np.float32([0.5, 0.3, 0.4])
    outside = np.linalg.norm(np.maximum(q, 0), axis=1)
    return outside + np.minimum(q.max(1), 0)


def thin_plate(points):
    """0.03 thick, in a grid whose first blocks are 0.13 long."""
    q = np.abs(points - np.float32([0, 0.033, 0])) - np.float32([0.7, 0.015, 0.6])
    return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(1), 0)


def hair(points):
    """A ball and a thread that barely touches it, and a speck."""
    thread = np.linalg.norm(points[:, :2] - np.float32([0.3, 0.3]), axis=1) - 0.025
    speck = sphere(points, (-0.7, -0.7, -0.6), 0.03)
    return np.minimum(np.minimum(sphere(points, radius=0.4), thread), speck)


def torus(points):
    ring = np.linalg.norm(points[:, [0, 2]], axis=1) - np.float32(0.5)
    return np.hypot(ring, points[:, 1]) - np.float32(0.12)


def full_grid(field, resolution):
    low, high = map(np.asarray, BOX)
    index = np.stack(np.indices((resolution,) * 3), -1).reshape(-1, 3)
    points = (index * (high - low) / (resolution - 1) + low).astype(np.float32)
    values = field(points).reshape((resolution,) * 3).astype(np.float32)
    vertices, faces, _, _ = marching_cubes(values, 0, gradient_direction="descent")
    return vertices / (resolution - 1) * (high - low) + low, faces


@pytest.mark.parametrize("field", [sphere, box, thin_plate, hair, torus])
@pytest.mark.parametrize("resolution", [31, 64, 97])
def test_mesh_is_that_of_the_full_grid(field, resolution):
    vertices, faces = full_grid(field, resolution)
    counted = Counted(field)
    mesh = extract_mesh(counted, *BOX, resolution)
    np.testing.assert_array_equal(mesh.faces, faces)
    np.testing.assert_allclose(mesh.vertices, vertices, atol=1e-6)
    assert len(faces) > 200
    if resolution == 97:
        assert counted.count < 0.35 * resolution**3


def test_fine_grids_are_mostly_not_evaluated():
    counted = Counted(sphere)
    mesh = extract_mesh(counted, *BOX, 256)
    assert counted.count < 0.05 * 256**3
    # Outward: the volume that faces enclose is positive, and that of the sphere.
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(np.float64) for i in range(3))
    volume = np.sum(a * np.cross(b, c)) / 6
    assert volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=1e-3)


@pytest.mark.parametrize("slope", [4.0, 30.0])
def test_a_surface_steeper_than_expected_has_no_holes(slope):
    def steep(points):
        return slope * torus(points)

    vertices, faces = full_grid(steep, 97)
    counted = Counted(steep)
    mesh = extract_mesh(counted, *BOX, 97)
    assert counted.count < 0.2 * 97**3
    np.testing.assert_array_equal(mesh.faces, faces)
    np.testing.assert_allclose(mesh.vertices, vertices, atol=1e-6)


def test_safety_finds_what_a_slope_of_one_would_miss():
    def two(points):
        # At a corner of eight blocks, as far from their centres as can be.
        speck = sphere(points, (-0.75, -0.85, -0.6375), 0.03)
        return 3 * np.minimum(sphere(points, radius=0.3), speck)

    def count(**options):
        return len(extract_mesh(two, *BOX, 97, **options).faces)

    full = len(full_grid(two, 97)[1])
    assert count(safety=3.0) == full
    assert 0 < count(safety=1.0) < full


def test_level_and_border():
    mesh = extract_mesh(sphere, *BOX, 65, level=0.1)
    radius = np.linalg.norm(mesh.vertices - np.float32([0.1, 0, 0.05]), axis=1)
    np.testing.assert_allclose(radius, 0.7, atol=2e-3)
    # Cut by the box, the surface ends there.
    cut = extract_mesh(lambda p: sphere(p, (1.0, 0, 0), 0.5), *BOX, 65)
    assert cut.vertices[:, 0].max() == pytest.approx(1.0)
    assert len(cut.faces) > 500


def test_no_surface_gives_an_empty_mesh():
    for sign in (1, -1):
        mesh = extract_mesh(lambda p, s=sign: s * (sphere(p) + 9), *BOX, 32)
        assert mesh.vertices.shape == (0, 3)
        assert mesh.faces.shape == (0, 3)


@pytest.mark.parametrize("resolution", [2, 3, 4])
def test_the_smallest_grids(resolution):
    vertices, faces = full_grid(lambda p: p[:, 0] + 0.1, resolution)
    mesh = extract_mesh(lambda p: p[:, 0] + 0.1, *BOX, resolution)
    np.testing.assert_array_equal(mesh.faces, faces)
    np.testing.assert_allclose(mesh.vertices, vertices, atol=1e-6)


def test_what_cannot_be_extracted():
    def broken(points):
        return np.where(points[:, 0] > 0.5, np.nan, sphere(points))

    with pytest.raises(InputError, match=r"not finite at \d+ of \d+ points, the first"):
        extract_mesh(broken, *BOX, 32)
    with pytest.raises(InputError, match=r"the box from \(.*\) is empty"):
        extract_mesh(sphere, BOX[1], BOX[0], 32)
    with pytest.raises(InputError, match="at least 2"):
        extract_mesh(sphere, *BOX, 1)


def head(cfg=CFG):
    """A random model whose field has a surface, and a slope of 1 on average."""
    rng = np.random.default_rng(1)
    anchors = rng.uniform(-0.6, 0.6, (cfg.num_anchors, 3)).astype(np.float32)
    # NumPy draws: to compile random numbers of JAX for so many arrays takes long.
    template = jax.eval_shape(
        lambda key: init_params(key, cfg, anchors), jax.random.key(0)
    )
    params = jax.tree.map(
        lambda x: (rng.standard_normal(x.shape) / x.shape[-1] ** 0.5).astype("f4"),
        template,
    )
    params["anchors_mean"] = anchors
    codes = Codes(
        *(
            jnp.asarray(rng.standard_normal(n) * 0.3, jnp.float32)
            for n in (cfg.lat_dim_geo, cfg.lat_dim_app, cfg.lat_dim_exp)
        )
    )
    points = rng.uniform(*BOX, (200, 3)).astype(np.float32)
    steps = 0.01 * np.eye(3, dtype=np.float32)
    points = np.concatenate([points, *(points + step for step in steps)])
    sdf = dense_values(HeadModel(cfg, params), codes, points)[0].reshape(4, 200)
    slope = np.linalg.norm((sdf[1:] - sdf[0]) / 0.01, axis=0).mean()
    last = params["identity"]["geo"][-1]
    params["identity"]["geo"][-1] = {
        "w": last["w"] / slope,
        "b": (last["b"] - np.median(sdf[0])) / slope,
    }
    return HeadModel(cfg, params), codes


@partial(jax.jit, static_argnames=("cfg", "posed"))
def _dense_chunk(params, cfg, points, codes, posed):
    codes = jax.tree.map(lambda x: x[None], codes)
    if posed:
        result = evaluate(params, cfg, points[None], codes, method="dense")
    else:
        result = canonical_field(
            params,
            cfg,
            rest_queries(points[None], cfg),
            codes,
            predict_anchors(params, cfg, codes.geo),
            method="dense",
        )
    return result.sdf[0], jnp.zeros((0,)) if result.color is None else result.color[0]


def dense_values(model, codes, points, posed=True):
    """Signed distance [N] and colour [N, 3] by the dense twin."""
    parts = []
    for start in range(0, len(points), 1 << 14):
        chunk = np.zeros((1 << 14, 3), np.float32)  # One shape is compiled once.
        part = points[start : start + len(chunk)]
        chunk[: len(part)] = part
        values = _dense_chunk(model.params, model.cfg, chunk, codes, posed)
        parts.append([np.asarray(v)[: len(part)] for v in values])
    sdf, color = zip(*parts, strict=True)
    return np.concatenate(sdf), np.concatenate(color)


@pytest.mark.parametrize("posed", [True, False])
def test_head_mesh(posed):
    model, codes = head()
    mesh = head_mesh(
        model, codes, posed=posed, resolution=48, box=BOX, keep_components=0
    )

    dense = partial(dense_values, model, codes, posed=posed)
    vertices, faces = full_grid(lambda p: dense(p)[0], 48)
    assert mesh.dropped == (0, 0)
    assert len(mesh.faces) > 500
    np.testing.assert_array_equal(mesh.faces, faces)
    np.testing.assert_allclose(mesh.vertices, vertices, atol=1e-4)
    sdf, color = dense(mesh.vertices)
    # The field jumps a little where another set of anchors becomes the nearest.
    assert np.percentile(np.abs(sdf), 95) < 5e-3
    expected = np.clip((color + 1) / 2 * 255, 0, 255)
    assert mesh.colors.dtype == np.uint8
    assert np.abs(mesh.colors - expected).max() < 0.51
    # Normals are the direction in which the distance grows.
    step = 0.01 * mesh.normals
    ahead, behind = dense(mesh.vertices + step)[0], dense(mesh.vertices - step)[0]
    assert np.mean(ahead > behind) > 0.99


def test_floaters_are_dropped_and_colours_follow(monkeypatch):
    model, codes = head()

    class Values:
        def __init__(self, points):
            self.sdf = np.minimum(
                sphere(points, radius=0.4), sphere(points, (-0.7, -0.7, -0.6), 0.1)
            )
            self.color = points

    monkeypatch.setattr(
        meshing, "evaluate_points", lambda model, points, codes, **_: Values(points)
    )
    options = {"posed": True, "resolution": 64, "box": BOX}
    mesh = head_mesh(model, codes, **options)
    both = head_mesh(model, codes, **options, keep_components=2)
    assert mesh.dropped.components == 1
    assert mesh.dropped.faces == len(both.faces) - len(mesh.faces) > 0
    assert mesh.vertices.min() > -0.5
    np.testing.assert_array_equal(
        mesh.colors, np.round((mesh.vertices + 1) / 2 * 255).astype(np.uint8)
    )


def test_heads_without_surface_or_colour():
    model, codes = head()
    with pytest.raises(InputError, match="no surface in the box from"):
        last = model.params["identity"]["geo"][-1]
        model.params["identity"]["geo"][-1] = last | {"b": last["b"] + 99}
        head_mesh(model, codes, posed=True, resolution=16, box=BOX)
    options = {"posed": True, "resolution": 24, "box": BOX}
    assert head_mesh(*head(), **options, with_color=False).colors is None
    without = dataclasses.replace(CFG, hidden_dim_app=0)
    assert head_mesh(*head(without), **options).colors is None
