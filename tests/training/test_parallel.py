"""Views shared among devices: run in a process of its own, which has four.

`python -m tests.training.test_parallel FOLDER` is that process; the tests read what it
leaves.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from npga_jax.training import parallel

NUM_DEVICES = (1, 2, 4)
NUM_VIEWS = 4
# Fewer than are wanted: what is dropped must be counted the same, too.
MAX_ISECTS = 256
ROOT = Path(__file__).parents[2]


def run_on_devices(folder: Path) -> None:
    """Takes the same step on 1, 2 and 4 devices, and writes what it changed."""
    from npga_jax.core import runtime

    runtime.configure(num_cpu_devices=max(NUM_DEVICES))

    import optax

    from npga_jax.core import checkpoint
    from npga_jax.core.errors import InputError
    from npga_jax.training.state import init_train_state
    from npga_jax.training.step import make_train_step
    from tests import small_scene

    # Not Adam, whose first step is the same for gradients of any size.
    optimizer = optax.sgd(1.0)
    report: dict[str, Any] = {"messages": {}, "replicas_equal": {}, "metrics": {}}
    method = small_scene.METHOD.replace(code_noise=0.1)  # The same on all devices.
    for count in NUM_DEVICES:
        mesh = parallel.make_mesh(count)
        step = parallel.data_parallel(
            make_train_step(
                method,
                method.terms,
                small_scene.FRAMES._replace(max_isects=MAX_ISECTS),
                optimizer,
                axis_name=parallel.AXIS_NAME,
            ),
            mesh,
        )
        state = init_train_state(*small_scene.make_params(), optimizer)
        start = jax.tree.map(np.asarray, state.params)
        state = jax.device_put(state, parallel.replicated(mesh))
        batch = small_scene.make_batches(NUM_VIEWS)[1]
        state, metrics = step(state, parallel.shard_batch(batch, mesh))
        leaves = jax.tree.leaves(state)
        report["replicas_equal"][count] = all(
            len(leaf.addressable_shards) == count
            and all(
                np.array_equal(shard.data, leaf.addressable_shards[0].data)
                for shard in leaf.addressable_shards
            )
            for leaf in leaves
        )
        report["metrics"][count] = {k: v.item() for k, v in metrics.items()}
        change = jax.tree.map(
            lambda new, old: np.asarray(new) - old, state.params, start
        )
        np.savez(folder / f"change_{count}.npz", *jax.tree.leaves(change))

    mesh = parallel.make_mesh(2)
    saved = jax.device_put(small_scene.make_state(), parallel.replicated(mesh))
    saved = saved._replace(step=saved.step + 7)
    checkpoint.save_state(folder / "checkpoints", saved, {})
    single = parallel.replicated(parallel.make_mesh(1))
    loaded, _ = checkpoint.load_state(folder / "checkpoints", 7, saved, single)
    report["loads_elsewhere"] = all(
        np.array_equal(a, b) and b.sharding == single
        for a, b in zip(jax.tree.leaves(saved), jax.tree.leaves(loaded), strict=True)
    )
    report["all_devices"] = parallel.make_mesh().size
    report["shares"] = {
        views: parallel.make_mesh(0, views).size for views in (1, 3, 4, 6, 8)
    }
    for name, call in {
        "too many": lambda: parallel.make_mesh(5),
        "not divisible": lambda: parallel.make_mesh(2, 3),
    }.items():
        try:
            call()
        except InputError as error:
            report["messages"][name] = str(error)
    (folder / "report.json").write_text(json.dumps(report))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    command = [sys.executable, "-m", "tests.training.test_parallel", str(folder)]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def report(folder):
    return json.loads((folder / "report.json").read_text())


@pytest.mark.parametrize("count", NUM_DEVICES[1:])
def test_step_is_the_same_on_any_number_of_devices(folder, count):
    single, shared = (np.load(folder / f"change_{n}.npz") for n in (1, count))
    num_changed = 0
    for name in single:
        a, b = single[name], shared[name]
        largest = np.abs(a).max()
        num_changed += largest > 1e-4
        np.testing.assert_allclose(b, a, rtol=0, atol=3e-5 * largest + 1e-8)
    assert num_changed >= 5


@pytest.mark.parametrize("count", NUM_DEVICES[1:])
def test_metrics_are_the_same_on_any_number_of_devices(report, count):
    single, shared = (report["metrics"][str(n)] for n in (1, count))
    assert single["num_dropped"] > 0 and single["grad_norm"] > 1e-3
    assert shared == pytest.approx(single, rel=1e-5)


@pytest.mark.parametrize("count", NUM_DEVICES)
def test_every_device_holds_the_same_state(report, count):
    assert report["replicas_equal"][str(count)]


def test_state_saved_on_two_devices_loads_on_one(report):
    assert report["loads_elsewhere"]


def test_impossible_numbers_of_devices_are_errors(report):
    assert report["all_devices"] == 4
    assert "this machine has 4 cpu device(s)" in report["messages"]["too many"]
    assert "--views-per-step 3" in report["messages"]["not divisible"]


def test_as_many_devices_as_share_the_views_are_taken(report):
    assert report["shares"] == {"1": 1, "3": 3, "4": 4, "6": 3, "8": 4}
    assert parallel.largest_share(1, 2) == 1
    assert parallel.largest_share(4, 3) == 2
    assert parallel.largest_share(0, 5) == 5


if __name__ == "__main__":
    run_on_devices(Path(sys.argv[1]))
