"""F is made once for the same person, codes and settings."""

import jax
import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.distillation import cache
from npga_jax.distillation.cache import distilled_forward, forward_path
from npga_jax.distillation.distill import initial_forward
from tests.distillation.ball_person import CODES, OPTIONS, make_person

PERSON = make_person()


@pytest.fixture
def calls(monkeypatch):
    """Distillation replaced: weights that tell which call made them."""
    made = []

    def distill(person, codes, *, num_features, options):
        made.append(len(codes))
        params = initial_forward(
            codes.mean(axis=0), 1.0, num_features=num_features, options=options
        )
        return params | {"out_w": params["out_w"] + len(made)}, None

    monkeypatch.setattr(cache, "distill", distill)
    return made


def ask(folder, person=PERSON, codes=CODES, num_features=3, options=OPTIONS):
    return distilled_forward(
        person, codes, num_features=num_features, options=options, cache_dir=folder
    )


def test_the_second_time_it_is_read(calls, tmp_path):
    first, second = ask(tmp_path), ask(tmp_path)
    assert len(calls) == 1
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert [p.suffix for p in tmp_path.rglob("*") if p.is_file()] == [".npz"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:300]),
        lambda path: path.write_bytes(b""),
        lambda path: np.savez(path, out_w=np.zeros(8)),
        lambda path: path.write_bytes(path.read_bytes().replace(b"}", b"[")),
        lambda path: np.savez(
            path, **{k: v[..., None] for k, v in np.load(path).items()}
        ),
        lambda path: np.savez(
            path, **{k: v * np.nan for k, v in np.load(path).items()}
        ),
    ],
    ids=["cut short", "empty", "keys missing", "headers", "other shapes", "not finite"],
)
def test_what_is_damaged_is_made_anew(calls, tmp_path, damage):
    ask(tmp_path)
    (path,) = tmp_path.rglob("*.npz")
    damage(path)
    again = ask(tmp_path)
    assert len(calls) == 2
    np.testing.assert_array_equal(again["out_w"], 2)
    jax.tree.map(np.testing.assert_array_equal, again, ask(tmp_path))
    assert len(calls) == 2


def test_anything_that_matters_makes_another_file(tmp_path, monkeypatch):
    def path(person=PERSON, codes=CODES, num_features=3, options=OPTIONS):
        return forward_path(person, codes, num_features, options, tmp_path)

    other_codes = CODES.copy()
    other_codes[3, 1] += 1e-3
    paths = [
        path(),
        path(person=PERSON._replace(geo=PERSON.geo + 0.1)),
        path(person=PERSON._replace(exp_std=2 * PERSON.exp_std)),
        path(person=PERSON._replace(model=make_person(motion=0.05).model)),
        path(codes=other_codes),
        path(codes=CODES[:-1]),
        path(num_features=4),
        path(options=OPTIONS._replace(steps=OPTIONS.steps + 1)),
        path(options=OPTIONS._replace(seed=1)),
    ]
    assert len(set(paths)) == len(paths)
    assert path() == path(person=make_person())
    monkeypatch.setattr("npga_jax.distillation.cache.METHOD_VERSION", 0)
    assert path() not in paths
    assert paths[0].parent == tmp_path / "forward"


def test_a_cache_that_cannot_be_written_is_a_sentence(calls, tmp_path):
    (tmp_path / "forward").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot be written .*--capture.cache"):
        ask(tmp_path)
