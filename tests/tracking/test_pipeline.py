"""From a capture's clouds to driving codes: real files, the packaged head model."""

import json
from pathlib import Path

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.data.driving import load_driving
from npga_jax.data.settings import CaptureConfig
from npga_jax.nphm.config import METRES_PER_UNIT
from npga_jax.nphm.surface import project_to_surface
from npga_jax.prior.heldout import codes_of
from npga_jax.tracking.files import model_name
from npga_jax.tracking.head_prior import open_prior
from npga_jax.tracking.options import TrackingOptions
from npga_jax.tracking.pipeline import track_subject
from tests.scripts import run_script
from tests.synthetic_capture import write_capture, write_pcd

SEQUENCES = ("EXP-1-head", "FREE")
OPTIONS = TrackingOptions(points=150, identity_frames=3, joint_frames=3)


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    """A person of the packaged prior who talks and moves, as clouds."""
    root = tmp_path_factory.mktemp("heads")
    truth = write_capture(root, sequences=SEQUENCES, num_frames=3, with_labels=False)
    loaded = open_prior(None)
    rng = np.random.default_rng(2)
    glob = loaded.model.cfg.lat_dim_glob
    geo = np.zeros_like(loaded.geo_std)
    geo[:glob] = 0.7 * loaded.geo_std[:glob] * rng.standard_normal(glob)
    start = rng.normal(size=(3000, 3))
    start /= np.linalg.norm(start, axis=-1, keepdims=True)
    start = start * [0.26, 0.36, 0.3] + [0, 0, -0.08]
    start = start[(start[:, 1] > -0.4) & (start[:, 2] > -0.15)][:700]
    for sequence in SEQUENCES:
        for t, pose in enumerate(truth.world_from_head[sequence]):
            exp = 0.4 * loaded.exp_std * rng.standard_normal(len(loaded.exp_std))
            codes = codes_of(loaded, geo, exp.astype(np.float32))
            found = project_to_surface(loaded.model, start, codes)
            rotation = pose[:3, :3] / np.cbrt(np.linalg.det(pose[:3, :3]))
            write_pcd(
                truth.folder / f"sequences/{sequence}/pointclouds/frame_{t:05d}.pcd",
                found.points * METRES_PER_UNIT @ pose[:3, :3].T + pose[:3, 3],
                np.full((len(start), 3), 0.5),
                found.normals @ rotation.T,
            )
    (truth.folder / "sequences/FREE/pointclouds/frame_00001.pcd").unlink()
    return truth


def track(capture, cache: Path, output: Path, **changes):
    return track_subject(
        capture.root,
        capture.subject,
        CaptureConfig(width=16, cache_dir=cache),
        prior=changes.pop("prior", None),
        output=output,
        options=OPTIONS,
        **changes,
    )


@pytest.fixture(scope="module")
def tracked(capture, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tracked")
    result = track(capture, folder / "cache", folder / "out", overlay=True)
    return result, folder


def test_clouds_are_fitted_and_poses_found(capture, tracked):
    result, folder = tracked
    assert [f.failed for f in result.fits] == [False] * 5
    assert max(f.median_mm for f in result.fits) < 1.0
    for sequence in SEQUENCES:
        codes = load_driving(folder / "out" / sequence / "tracking" / "nphm.npz")
        assert codes.model == model_name(open_prior(None))
        truth = capture.world_from_head[sequence][codes.frame_id]
        # The head may hide a little motion in its expression.
        gap = codes.world_from_head[:, :3, 3] - truth[:, :3, 3]
        assert np.abs(gap).max() < 0.015
    report = json.loads((folder / "out" / "report.json").read_text())
    assert report["num_frames"] == 5 and report["failed"] == []
    assert (folder / "out" / "FREE" / "overlay.mp4").stat().st_size > 500
    assert not list(folder.rglob("*.part"))


def test_sequences_that_have_codes_are_kept_and_lend_their_identity(
    capture, tracked, capsys
):
    _, folder = tracked
    kept = folder / "out" / "FREE" / "tracking" / "nphm.npz"
    other = folder / "out" / "EXP-1-head" / "tracking" / "nphm.npz"
    before, first = kept.read_bytes(), np.load(other)["expr"]
    other.unlink()
    track(capture, folder / "cache", folder / "out")
    assert kept.read_bytes() == before
    again = np.load(other)
    np.testing.assert_array_equal(again["z_id"], np.load(kept)["z_id"])
    assert np.abs(again["expr"] - first).max() < 0.3
    assert track(capture, folder / "cache", folder / "out") is None
    assert "already" in capsys.readouterr().out


def test_codes_of_another_model_are_not_added_to(capture, tracked, tmp_path):
    _, folder = tracked
    target = tmp_path / "FREE" / "tracking" / "nphm.npz"
    target.parent.mkdir(parents=True)
    arrays = dict(np.load(folder / "out" / "FREE" / "tracking" / "nphm.npz"))
    np.savez(target, **{**arrays, "model": "nphm other 12345678"})
    with pytest.raises(InputError, match="other 12345678"):
        track(capture, folder / "cache", tmp_path)


def test_frames_without_a_cloud_are_named_and_left_out(tracked):
    result, folder = tracked
    assert [(t.sequence, t.frame_id) for t in result.without_cloud] == [("FREE", 1)]
    codes = load_driving(folder / "out" / "FREE" / "tracking" / "nphm.npz")
    np.testing.assert_array_equal(codes.frame_id, [0, 2])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--prior", "absent.npz"], "absent.npz"),
        (["--prior", "README.md"], "README.md"),
        (["--sequences", "NOPE"], "NOPE"),
        (["--subject", "999"], "999"),
        (["--output", "README.md"], "cannot be written"),
        (["--tracking.points", "0"], "--tracking.points 0: expected"),
        (["--tracking.noise-mm", "nan"], "--tracking.noise-mm nan: expected"),
        (["--tracking.expression-noise-mm", "0"], "expression-noise-mm 0.0: expected"),
    ],
)
def test_mistakes_are_one_sentence_and_code_2(capture, tracked, args, said):
    base = ["--subject", capture.subject, "--data-root", str(capture.root)]
    base += ["--capture.width", "16", "--capture.cache-dir", str(tracked[1] / "cache")]
    result = run_script("experiments/track.py", *base, *args)
    assert result.returncode == 2, result.stderr
    assert said in result.stderr and "Traceback" not in result.stderr
