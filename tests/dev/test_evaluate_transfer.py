"""`dev/evaluate_transfer.py`: its fit, its distances, and a whole small run."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from npga_jax.app import cli
from npga_jax.distillation.distill import initial_forward
from npga_jax.prior.ict import NUM_VERTICES, ORIGIN_CM, UNIT_CM
from tests.small_head_model import BALL_RADIUS
from tests.synthetic_capture import write_capture
from tests.tracked_capture import write_prior, write_tracked

EXPERIMENTS = Path(__file__).parents[2] / "dev"
rng = np.random.default_rng(0)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.setattr("npga_jax.core.runtime.configure", lambda **_: None)
    import evaluate_transfer

    return evaluate_transfer


def random_rotation():
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return rotation * np.sign(np.linalg.det(rotation))


def test_distances_do_not_see_the_head_pose(script):
    true = 0.1 * rng.normal(size=(2, 400, 3))
    moving = np.zeros((2, 400), bool)
    moved = np.stack([x @ random_rotation().T + rng.normal(size=3) for x in true])
    assert script.measure(moved, true, moving)["p95_mm"] < 1e-6
    # One point in ten is off by 5 mm, this way and that: no pose hides it.
    off = true.copy()
    off[:, ::20, 0] += 0.005
    off[:, 10::20, 0] -= 0.005
    moving[:, ::10] = True
    result = script.measure(off, true, moving)
    assert result["median_mm"] < 0.2
    assert result["moving_median_mm"] == pytest.approx(5.0, rel=0.05)
    assert 4.5 < result["p95_mm"] < 5.5


def test_the_linear_map_is_found_and_noise_makes_it_careful(script):
    codes = rng.uniform(size=(40, 6))
    true = rng.normal(size=(6, 15))
    points = (codes @ true + 2.0).reshape(40, 5, 3)
    groups = np.repeat(np.arange(5), 8)
    linear, ridge = script.fit_linear(codes, points, groups)
    new = rng.uniform(size=(3, 6))
    np.testing.assert_allclose(
        linear(new), (new @ true + 2.0).reshape(3, 5, 3), atol=1e-3
    )
    noisy = points + 3.0 * rng.normal(size=points.shape)
    _, careful = script.fit_linear(codes, noisy, groups)
    assert careful > ridge == 1e-4
    _, alone = script.fit_linear(codes, points, np.zeros(40))
    assert alone == 10.0


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two tracked balls, and an ICT-FaceKit whose face is the ball, opening."""
    root = tmp_path_factory.mktemp("transfer")
    model = write_prior(root / "prior.npz", motion=0.0)
    sphere = rng.normal(size=(NUM_VERTICES, 3))
    sphere /= np.linalg.norm(sphere, axis=-1, keepdims=True)
    opening = np.zeros((2, NUM_VERTICES, 3), np.float32)
    opening[0, : NUM_VERTICES // 2] = np.float32([0, -1, 0])
    np.savez(
        root / "ict.npz",
        neutral=(ORIGIN_CM + UNIT_CM * BALL_RADIUS * sphere).astype(np.float32),
        identity=np.zeros((1, NUM_VERTICES, 3), np.float32),
        expression=opening,
        expression_names=np.array(["open", "nothing"]),
        faces=np.array([[0, 1, 2]]),
    )
    for seed, subject in enumerate(("074", "104")):
        capture = write_capture(root, subject, num_points=5, width=16, seed=seed)
        write_tracked(capture, model, seed)
        truth = {"identity": np.zeros(1), "pivot_cm": np.zeros(3)}
        for sequence in capture.sequences:
            # World and head frame are one: poses say where the ball's centre is.
            truth[f"{sequence}/weights"] = 0.3 * capture.expr[sequence][:, :2]
            truth[f"{sequence}/rotation"] = np.zeros((capture.num_frames, 3))
            shift = 100 * capture.world_from_head[sequence][:, :3, 3] - ORIGIN_CM
            truth[f"{sequence}/translation"] = shift
        (capture.folder / "ground_truth").mkdir()
        np.savez(capture.folder / "ground_truth/truth.npz", **truth)
    return root


def run(script, root, tmp_path, *options):
    options = [
        *(f"--target-capture={root}/074", f"--driver-capture={root}/104"),
        *(f"--scans={root}/ict.npz", f"--prior={root}/prior.npz"),
        *(f"--json={tmp_path}/new/figures.json", "--capture.width=16"),
        *(f"--capture.cache-dir={tmp_path}/cache", *options),
    ]
    cli.run(script.main, script.EvaluateTransferConfig, argv=options)


def test_a_model_that_does_not_move_is_as_far_off_as_the_neutral_head(
    script, world, tmp_path, monkeypatch, capsys
):
    def still(person, codes, *, num_features, options, cache_dir):
        return initial_forward(
            codes[0], 1.0, num_features=num_features, options=options
        )

    monkeypatch.setattr("npga_jax.training.building.distilled_forward", still)
    run(script, world, tmp_path)
    figures = json.loads((tmp_path / "new/figures.json").read_text())
    assert figures["target"] == "074" and figures["driver"] == "104"
    assert figures["num_frames"] == 4 and figures["roots_found"] == 1.0
    neutral, *driven = figures["methods"].values()
    assert len(driven) == 3
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3),
        [neutral] * 3,
        driven,
    )
    # The whole narrow face goes down as one: alignment takes nearly all of it away.
    assert neutral["median_mm"] < 2.0
    said = capsys.readouterr().out
    assert "104 drives 074: 4 frames of FREE" in said
    assert "blendshape codes, linear map" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scans={}/none.npz"], "no file of scans"),
        (["--target-capture={}/999"], "truth.npz is missing"),
        (["--sequence=SEN"], "no sequence 'SEN'"),
        (["--blendshapes=arkit"], "has no arkit.npz to compare with"),
        (["--capture.driving=blendshapes"], "both must be of one head model"),
        (["--prior={}/none.npz"], "none.npz"),
        (["--json={}/ict.npz/a.json"], "cannot be written"),
    ],
)
def test_mistakes(script, world, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as end:
        run(script, world, tmp_path, *(o.format(world) for o in options))
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "error: " in error and message in error
    assert not list(tmp_path.iterdir())
