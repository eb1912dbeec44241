"""Lips that touch in canonical space part where the packaged head model parts them."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree

from npga_jax.avatar import ForwardConfig
from npga_jax.distillation import distill as module
from npga_jax.distillation.distill import DistillOptions, distill, pose_points
from npga_jax.distillation.person import Person
from npga_jax.distillation.roots import pose_by_roots
from npga_jax.distillation.sampling import make_domain
from npga_jax.tracking.head_prior import open_prior

SIZES = ForwardConfig()
OPTIONS = DistillOptions(
    hidden=SIZES.hidden, layers=SIZES.layers, octaves=SIZES.octaves, steps=200
)
CANDIDATES = 2
NEIGHBOURS, PARTED = 0.006, 0.004  # Metres.


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """Not here: full-size networks run for longer than they take to compile."""


def gaps(points, pairs):
    return np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=-1)


def test_lips_part(monkeypatch):
    prior = open_prior(None)
    person = Person(prior.model, np.zeros_like(prior.geo_std), prior.exp_std)
    leading = 2 * np.diag(prior.exp_std)[:CANDIDATES]
    candidates = np.concatenate([leading, -leading]).astype(np.float32)
    domain, backward = make_domain(person, candidates, resolution=72)
    x, y, z = np.asarray(domain.surface).T
    around = (np.abs(x) < 0.03) & (y < -0.01) & (y > -0.08) & (z > 0)
    mouth = np.asarray(domain.surface)[around]
    pairs = cKDTree(mouth).query_pairs(NEIGHBOURS, output_type="ndarray")

    def roots(codes, starts):
        posed, valid = pose_by_roots(backward, mouth, codes, starts)
        return posed, valid[:, pairs].all(axis=-1)

    # Of the leading codes, the one that opens the mouth most.
    posed, valid = roots(
        candidates, np.broadcast_to(mouth, (len(candidates), *mouth.shape))
    )
    opened = [
        np.quantile(gaps(p, pairs)[v], 0.99) for p, v in zip(posed, valid, strict=True)
    ]
    code = candidates[np.argmax(opened)]

    codes = np.stack([0 * code, 0.5 * code, code])
    domain = domain._replace(codes=jnp.asarray(codes), code_std=jnp.std(codes, axis=0))
    monkeypatch.setattr(module, "make_domain", lambda *_: (domain, backward))
    params, _ = distill(person, codes, num_features=2, options=OPTIONS, progress=False)
    ours = np.asarray(
        pose_points(params, jnp.asarray(mouth), code[None], octaves=OPTIONS.octaves)
    )
    exact, valid = roots(code[None], ours)
    before = gaps(mouth, pairs)[valid[0]]
    parted = gaps(exact[0], pairs)[valid[0]] - before
    by_forward = gaps(ours[0], pairs)[valid[0]] - before
    is_lip = parted > PARTED
    assert is_lip.sum() > 100
    assert np.median(by_forward[is_lip]) > 0.5 * np.median(parted[is_lip])
    # What lies on one lip stays together.
    assert np.median(np.abs(by_forward[~is_lip])) < 0.0005
