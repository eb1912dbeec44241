"""The auto-decoder: steps, codes, halting, and the command line."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.core.settings import check_ranges
from npga_jax.nphm.storage import load_head_model
from npga_jax.prior import trainer
from npga_jax.prior.autodecoder import Codebook, CodeMoments, update_codes
from npga_jax.prior.batches import PointCounts, Sampler
from npga_jax.prior.mesh_folder import load_mesh_folder
from npga_jax.prior.settings import PriorConfig
from npga_jax.prior.validation import validate
from npga_jax.tracking.head_prior import open_prior
from tests.exact_products import inexact_products
from tests.scripts import Result, run_script
from tests.small_scans import small_scans, write_mesh_folder

SMALL = {
    "steps": 24,
    "scans_per_step": 2,
    "hidden_geo": 8,
    "layers_geo": 2,
    "hidden_exp": 8,
    "log_every": 4,
    "save_every": 8,
    "validation_scans": 0,
}


@pytest.fixture(scope="module")
def mesh_folder(tmp_path_factory):
    """Scans as files: the command then runs the program that is compiled here."""
    return write_mesh_folder(tmp_path_factory.mktemp("scans"), small_scans(9, 6))


@pytest.fixture(scope="module")
def prepared(mesh_folder, tmp_path_factory):
    settings = PriorConfig(scans=mesh_folder, **SMALL)
    scans = load_mesh_folder(mesh_folder)
    folder = tmp_path_factory.mktemp("prior")
    setup = trainer.prepare(settings, scans)
    first = jax.device_get(setup.state)
    state, _ = trainer.train(settings, scans, setup, folder)
    return settings, scans, first, jax.device_get(state), folder


def test_training_lowers_the_losses_that_it_is_for(prepared):
    _, _, _, _, folder = prepared
    lines = [
        json.loads(x) for x in (folder / "metrics.jsonl").read_text().split("\n")[:-1]
    ]
    assert [line["step"] for line in lines] == list(range(4, 25, 4))
    assert lines[-1]["near_corresp"] < 0.95 * lines[0]["near_corresp"]
    assert lines[-1]["total"] < 0.95 * lines[0]["total"]


def test_only_codes_that_were_seen_move(prepared):
    _, scans, first, last, _ = prepared
    visits = last.moments.visits.exp[:, 0]
    moved = np.abs(last.codes.exp - first.codes.exp).max(axis=1)
    assert visits.sum() <= 24 * 2 and (visits == 0).any()
    assert (moved[visits == 0] == 0).all()
    assert (moved[(visits > 0) & ~scans.is_neutral] > 0).all()


def test_resuming_gives_the_same_weights(prepared, tmp_path, monkeypatch):
    _, scans, _, last, _ = prepared
    half = PriorConfig(scans=Path("none"), **SMALL)
    setup = trainer.prepare(half, scans)
    optimizer_steps = half.steps

    class Stop(Exception):
        pass

    def stop_after(log, *, step, **values):
        if step == 16:
            raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(trainer.MetricsLog, "write", stop_after)
        trainer.train(half, scans, setup, tmp_path)
    resumed = PriorConfig(scans=Path("none"), resume=True, **SMALL)
    setup = trainer.prepare(resumed, scans)
    state, _ = trainer.train(resumed, scans, setup, tmp_path)
    assert int(state.step) == optimizer_steps
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(last), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_sparse_adam_is_adam_on_the_rows_seen():
    rng = np.random.default_rng(0)
    book = Codebook(*(jnp.asarray(rng.normal(size=(3, 2))) for _ in range(2)))
    zero = jax.tree.map(jnp.zeros_like, book)
    visits = Codebook(jnp.zeros((3, 1)), jnp.zeros((3, 1)))
    grads = jax.tree.map(lambda x: x + 1.0, book)
    rows = Codebook(jnp.array([1, 1]), jnp.array([0, 2]))
    new, moments = update_codes(
        book, CodeMoments(zero, zero, visits), grads, rows, jnp.asarray(0.1)
    )
    # Adam's first step has the length of the rate and the gradient's sign.
    expected = book.geo.at[1].add(-0.1 * jnp.sign(grads.geo[1]))
    np.testing.assert_allclose(new.geo, expected, atol=1e-5)
    np.testing.assert_array_equal(new.exp[1], book.exp[1])
    np.testing.assert_array_equal(moments.visits.geo[:, 0], [0, 1, 0])


def test_a_step_that_is_not_finite_changes_nothing_but_the_flag(prepared):
    settings, scans, *_ = prepared
    setup = trainer.prepare(settings, scans)
    before = jax.device_get(setup.state)
    step_fn = trainer.make_step(settings, setup)
    batch = Sampler(scans, setup.anchor_vertices, PointCounts(), 2, 0).batch(0)
    assert not inexact_products(step_fn, setup.state, batch)
    near = batch.near._replace(sdf=batch.near.sdf * np.nan)
    state, _ = step_fn(setup.state, batch._replace(near=near))
    assert bool(state.halted)
    after = jax.device_get(state._replace(halted=before.halted))
    for ours, theirs in zip(
        jax.tree.leaves(after), jax.tree.leaves(before), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_without_expressions_there_is_nothing_to_validate(tmp_path):
    """The report is JSON all the same: it has no word for NaN."""
    assert validate(open_prior(None), small_scans(2, 0), 4, tmp_path) == []
    report = json.loads((tmp_path / "validation.json").read_text(), parse_constant=int)
    assert report["scans"] == [] and report["median_mm"] is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rate": 0.0}, "--rate 0.0: expected a finite number that is more than 0"),
        ({"rate": 1.5}, "--rate 1.5: expected a finite number that is more than 0"),
        ({"identities": 1}, "--identities 1: expected a whole number that is at least"),
        ({"steps": 0}, "--steps 0: expected a whole number that is at least 1"),
        ({"seed": 2**32}, "--seed 4294967296: expected a whole number"),
        ({"code_noise": -0.1}, "--code-noise -0.1: expected a finite number"),
        ({"code_noise": float("nan")}, "--code-noise nan: expected"),
    ],
)
def test_numbers_out_of_range_are_named(change, said):
    check_ranges(PriorConfig(scans=Path("none"), seed=0, code_noise=2.0))
    with pytest.raises(InputError) as error:
        check_ranges(PriorConfig(scans=Path("none"), **change))
    assert str(error.value).startswith(said)


def run(*args: str) -> Result:
    return run_script("experiments/train_prior.py", *args)


def test_command_line_trains_resumes_and_refuses(mesh_folder, tmp_path):
    options = [f"--{k.replace('_', '-')}={v}" for k, v in SMALL.items()]
    options += ["--scans", str(mesh_folder), "--output", str(tmp_path / "run")]
    done = run(*options)
    assert done.returncode == 0, done.stderr
    model, metadata = load_head_model(tmp_path / "run" / "prior.npz")
    assert model.cfg.num_anchors == 65
    assert metadata["steps"] == 24 and "nobody" in metadata["source"]
    assert len(metadata["code_std"]["exp"]) == model.cfg.lat_dim_exp
    again = run(*options)
    assert again.returncode == 2 and "--resume" in again.stderr
    other = run(*options, "--resume", "--rate=1e-4")
    assert other.returncode == 2 and "rate" in other.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--scans", "absent"], "no scans at absent"),
        (["--scans", "README.md"], "cannot be read"),
        (["--scans", "docs"], "scans.json"),
        (["--scans", "docs", "--steps", "0"], "--steps 0"),
        (["--scans", "docs", "--rate", "nan"], "--rate nan"),
    ],
)
def test_mistakes_end_with_one_sentence_and_code_2(args, said, tmp_path):
    result = run(*args, "--output", str(tmp_path / "run"))
    assert result.returncode == 2, result.stderr
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()
