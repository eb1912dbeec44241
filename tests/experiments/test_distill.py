"""`experiments/distill.py` on a tiny capture: what it writes, and its mistakes."""

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import npga_jax
from npga_jax.app import cli
from npga_jax.core.errors import InputError
from npga_jax.data.opening import open_capture
from npga_jax.data.settings import CaptureConfig
from npga_jax.data.splits import expression_codes, holdout_split
from npga_jax.distillation import sampling
from npga_jax.distillation.cache import forward_path
from npga_jax.distillation.distill import initial_forward
from npga_jax.distillation.person import open_person
from npga_jax.training.building import default_method, distill_options
from npga_jax.training.settings import TrainConfig
from tests.synthetic_capture import write_capture
from tests.tracked_capture import write_prior, write_tracked

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SMALL = ("--forward.hidden=8", "--forward.layers=2", "--forward.octaves=2")
SMALL += ("--forward.steps=50", "--feature-dim=4")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.setattr("npga_jax.core.runtime.configure", lambda **_: None)
    # A ball needs no fine mesh.
    coarse = functools.partial(sampling.make_domain, resolution=40)
    for module in ("distill", "sampling"):
        monkeypatch.setattr(f"npga_jax.distillation.{module}.make_domain", coarse)
    import distill

    return distill


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """074 is tracked, 104 is not; prior.npz and another one."""
    folder = tmp_path_factory.mktemp("distill")
    model = write_prior(folder / "prior.npz")
    write_prior(folder / "other.npz", motion=0.01)
    write_tracked(write_capture(folder, "074", num_points=5, width=16), model)
    write_capture(folder, "104", num_points=5, width=16)
    return folder


def run(script, root, output, *options, subject="074"):
    options = [
        *(f"--subject={subject}", f"--data-root={root}", f"--prior={root}/prior.npz"),
        *(f"--output={output}", "--resolution=24", "--capture.width=16"),
        *(f"--capture.cache-dir={root}/cache", *SMALL, *options),
    ]
    cli.run(script.main, script.DistillConfig, argv=options)


def test_f_is_made_measured_drawn_and_kept_for_training(
    script, root, tmp_path, capsys, monkeypatch
):
    output = tmp_path / "new" / "forward"
    run(script, root, output)
    said = capsys.readouterr().out
    assert "from 4 training codes: distilled in" in said
    assert "measured with 4 codes of FREE" in said
    assert "cycle error on the skin: " in said and "target below 0.5 and 2 mm" in said
    figures = json.loads((output / "forward.json").read_text())
    assert figures["num_training_codes"] == figures["num_codes"] == 4
    assert figures["settings"]["hidden"] == 8 and figures["distilled_in_seconds"] > 0
    assert 0 < figures["cycle_median_mm"] < figures["cycle_p95_mm"]
    assert len(figures["targets"]) == 4
    # The canonical head beside three frames, from two sides, each under a caption.
    image = np.asarray(Image.open(output / "forward.png"))
    assert image.shape == (2 * (440 + 20), 4 * 360, 3)
    tiles = image[20:460].reshape(440, 4, 360, 3).swapaxes(0, 1)
    is_blue = tiles[..., 2].astype(int) > tiles[..., 0].astype(int) + 30
    is_head = (tiles < 250).any(-1)
    assert 0.1 < is_head[0].mean() < 0.9
    assert not is_blue[0].any() and is_blue[1:].any()

    # A training with these settings finds it.
    small = TrainConfig()
    cfg = dataclasses.replace(
        small,
        capture=dataclasses.replace(
            small.capture, driving="nphm", width=16, cache_dir=root / "cache"
        ),
        gaussians=dataclasses.replace(small.gaussians, feature_dim=4),
        forward=dataclasses.replace(
            small.forward, hidden=8, layers=2, octaves=2, steps=50
        ),
    )
    capture = open_capture("074", root, cfg.capture, decode=False)
    split = holdout_split(capture, "FREE", "222200037")
    person = open_person(capture, root / "prior.npz")
    codes = expression_codes(capture, split.train)
    monkeypatch.setattr("npga_jax.distillation.cache.distill", None)
    kept = default_method(cfg).forward.fit(person, codes, 4)
    assert kept["out_w"].shape == (8, 3) and np.any(kept["out_w"])
    path = forward_path(person, codes, 4, distill_options(cfg), root / "cache")
    assert str(path) in said


def test_library_distils_as_the_capture_was_opened_and_gives_all_of_f(
    root, monkeypatch
):
    """Held-out frames and cache are the capture's, the head model the settings'."""
    small = TrainConfig()
    cfg = dataclasses.replace(
        small,
        prior=root / "prior.npz",
        gaussians=dataclasses.replace(small.gaussians, feature_dim=4),
        forward=dataclasses.replace(small.forward, hidden=8, layers=2, octaves=2),
    )
    used = CaptureConfig(
        width=16,
        driving="nphm",
        held_out_sequence="EXP-2",
        cache_dir=root / "cache of EXP-2",
    )
    capture = open_capture("074", root, used, progress=False, decode=False)

    def started(person, codes, *, num_features, options):
        return initial_forward(
            codes[0], person.exp_std, num_features=num_features, options=options
        ), None

    monkeypatch.setattr("npga_jax.distillation.cache.distill", started)
    made = npga_jax.distill(capture, cfg)
    split = holdout_split(capture, "EXP-2", "222200037")
    np.testing.assert_array_equal(made.codes, expression_codes(capture, split.train))
    assert made.path.is_relative_to(used.cache_dir) and made.path.is_file()
    assert not made.was_cached and npga_jax.distill(capture, cfg).was_cached
    means = np.zeros((5, 3), np.float32)
    posed = made.forward.apply(
        made.params, means, np.zeros((5, 4)), np.zeros((5, 2)), made.codes[0]
    )
    np.testing.assert_array_equal(posed, means)  # As it starts, it moves nothing.
    alone = dataclasses.replace(cfg.forward, source="none")
    with pytest.raises(InputError, match="none asks for no F"):
        npga_jax.distill(capture, dataclasses.replace(cfg, forward=alone))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--capture.driving=blendshapes"], "are of 'test', which no F can be"),
        (["--subject=104"], "has no driving file nphm.npz|have no driving file"),
        (["--subject=999"], "subject '999': no folder"),
        (["--prior={root}/other.npz"], "and not of 'nphm other"),
        (["--prior={root}/none.npz"], "none.npz"),
        (["--output={root}/prior.npz"], "cannot be written"),
        (["--forward.steps=0"], "--forward.steps 0: expected"),
        (["--forward.source=none"], "--forward.source none asks for no F"),
        (["--feature-dim=0"], "--feature-dim is 0"),
        (["--resolution=4"], "--resolution is 4"),
        (["--capture.held-out-sequence=SEN"], "no sequence 'SEN'"),
    ],
)
def test_mistakes(script, root, tmp_path, capsys, options, message):
    before = sorted(p for p in root.rglob("*") if p.is_file())
    with pytest.raises(SystemExit) as end:
        run(script, root, tmp_path / "out", *(o.format(root=root) for o in options))
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert "error: " in error and any(m in error for m in message.split("|"))
    assert not list(tmp_path.iterdir())
    assert sorted(p for p in root.rglob("*") if p.is_file()) == before
