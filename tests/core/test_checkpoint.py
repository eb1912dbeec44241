"""Training states on disk: whole, or refused in a sentence."""

import errno
import gc
import logging
import shutil

import jax
import numpy as np
import pytest

from npga_jax.core import checkpoint
from npga_jax.core.errors import InputError
from npga_jax.training import parallel
from tests import small_scene


def make_state(step, **options):
    """A state with different numbers in every leaf and at every step."""
    state = small_scene.make_state(**options)
    rng = np.random.default_rng(step)

    def fill(x):
        if x.dtype != np.float32:
            return x
        return rng.normal(size=x.shape).astype(np.float32)

    return jax.tree.map(fill, state)._replace(step=np.array(step, np.int32))


def load(folder, step, template=None):
    template = jax.eval_shape(small_scene.make_state) if template is None else template
    sharding = parallel.replicated(parallel.make_mesh(1))
    return checkpoint.load_state(folder, step, template, sharding)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with checkpoints of steps 2 to 5, saved in this order; do not change."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    for step in (2, 3, 4, 5):
        checkpoint.save_state(folder, make_state(step), {"seconds": 0.5 * step})
    return folder


@pytest.fixture
def damaged(saved, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(saved, tmp_path / "checkpoints")


def test_state_comes_back_to_the_last_bit(saved):
    state, metadata = load(saved, 5)
    expected = make_state(5)
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert metadata == {"format_version": checkpoint.FORMAT_VERSION, "seconds": 2.5}


def test_only_the_latest_ones_are_kept(saved):
    assert sorted(p.name for p in saved.iterdir()) == ["3", "4", "5"]
    assert checkpoint.KEPT == 3 and checkpoint.latest_step(saved) == 5


def test_nothing_saved_yet_is_no_step(tmp_path):
    assert checkpoint.latest_step(tmp_path / "no such folder") is None
    (tmp_path / "checkpoints").mkdir()
    assert checkpoint.latest_step(tmp_path / "checkpoints") is None


@pytest.mark.parametrize("name", ["9.orbax-checkpoint-tmp", "9"])
def test_half_written_checkpoint_does_not_count(damaged, name):
    shutil.copytree(damaged / "4", damaged / name)
    for file in (damaged / name).rglob("commit_success.txt"):
        file.unlink()
    (damaged / name / "_CHECKPOINT_METADATA").unlink()
    assert checkpoint.latest_step(damaged) == 5
    checkpoint.save_state(damaged, make_state(9), {})
    assert checkpoint.latest_step(damaged) == 9
    np.testing.assert_array_equal(
        load(damaged, 9)[0].params.gaussians.means,
        make_state(9).params.gaussians.means,
    )


def test_checkpoint_of_a_step_is_replaced(damaged):
    again = make_state(5)._replace(alive=np.zeros(small_scene.CAPACITY, bool))
    checkpoint.save_state(damaged, again, {})
    assert not np.any(load(damaged, 5)[0].alive)


def test_other_shapes_are_named(saved):
    template = jax.eval_shape(lambda: small_scene.make_state(sh_degree=1))
    with pytest.raises(InputError, match=r"sh has shape \(64, 1, 3\), exp.*\(64, 4, 3"):
        load(saved, 5, template)


@pytest.mark.parametrize(
    ("layers", "difference"), [(1, "(8,), expected none"), (3, "none, expected (8,)")]
)
def test_other_layers_are_named(saved, layers, difference):
    state = small_scene.make_state()
    detail = {**state.params.detail}
    detail["layers"] = (2 * detail["layers"])[:layers]
    template = state._replace(params=state.params._replace(detail=detail))
    with pytest.raises(InputError, match="does not fit these settings") as error:
        load(saved, 5, template)
    assert difference in str(error.value)


# Orbax leaves tasks behind that complain when they are collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("size", [0, 100])
def test_truncated_arrays_are_an_error(damaged, size):
    largest = max(
        (p for p in (damaged / "5").rglob("*") if p.is_file()),
        key=lambda p: p.stat().st_size,
    )
    largest.write_bytes(largest.read_bytes()[:size])
    with pytest.raises(InputError, match="5 cannot be read") as error:
        load(damaged, 5)
    assert "delete that folder" in str(error.value) and "\n" not in str(error.value)
    load(damaged, 4)
    del error
    gc.collect()


def test_missing_files_are_an_error(damaged):
    shutil.rmtree(damaged / "5" / "state")
    with pytest.raises(InputError, match="5 cannot be read"):
        load(damaged, 5)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device"),
        (ValueError("RESOURCE_EXHAUSTED: No space left on device [28]"), "no space"),
        (OSError(errno.EROFS, "Read-only file system"), "read-only file system"),
    ],
)
def test_disk_that_refuses_is_a_sentence(damaged, monkeypatch, error, reason):
    def refuse(*args, **kwargs):
        raise RuntimeError("a thread failed") from error

    monkeypatch.setattr(checkpoint.ocp.training.Checkpointer, "save", refuse)
    with pytest.raises(InputError, match=reason) as caught:
        checkpoint.save_state(damaged, make_state(6), {})
    assert "earlier checkpoints are intact" in str(caught.value)
    assert checkpoint.latest_step(damaged) == 5
    assert logging.root.manager.disable == logging.NOTSET


def test_folder_that_cannot_be_written_is_noticed_before_orbax_starts(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(checkpoint, "_checkpointer", None)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="step 6 cannot be saved"):
        checkpoint.save_state(tmp_path / "file", make_state(6), {})
    with pytest.raises(InputError, match="step 6 cannot be saved"):
        checkpoint.save_state(tmp_path / "file" / "below", make_state(6), {})


def test_other_failures_are_not_taken_for_the_disk(damaged, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("a bug")

    monkeypatch.setattr(checkpoint.ocp.training.Checkpointer, "save", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        checkpoint.save_state(damaged, make_state(6), {})


def test_first_number_that_is_not_finite_is_named():
    state = small_scene.make_state()
    assert checkpoint.first_non_finite(state) is None
    means = np.array(state.params.gaussians.means)
    means[3, 1] = np.nan
    gaussians = state.params.gaussians._replace(means=means)
    state = state._replace(params=state.params._replace(gaussians=gaussians))
    assert checkpoint.first_non_finite(state) == "params/gaussians/means"
