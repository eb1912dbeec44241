"""What is held out is neither missing nor trained on."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from npga_jax.data.capture import Capture
from npga_jax.data.opening import open_capture
from npga_jax.data.settings import CaptureConfig
from npga_jax.diagnosis.sequences import diagnose_held_out
from npga_jax.diagnosis.whole import diagnose
from tests.synthetic_capture import SyntheticCapture, write_capture, write_driving

DOCUMENT = (Path(__file__).parents[2] / "docs" / "check-data.md").read_text()


@pytest.fixture
def written_here(tmp_path: Path) -> SyntheticCapture:
    return write_capture(tmp_path, num_frames=4, with_labels=False)


def open_here(truth: SyntheticCapture, **changes: object) -> Capture:
    cfg = CaptureConfig(width=32, cache_dir=truth.root / "cache")
    cfg = dataclasses.replace(cfg, **changes)
    return open_capture("074", truth.root, cfg, progress=False, decode=False)


def test_nothing_is_said_of_good_captures(written_here, demo):
    assert diagnose_held_out(open_here(written_here)) == []
    assert diagnose(open_here(written_here)) == []
    assert diagnose(demo) == []


def test_a_sequence_under_two_names_is_named(written_here):
    sequences = written_here.folder / "sequences"
    shutil.copytree(sequences / "FREE", sequences / "EMO-1-shout")
    (said,) = diagnose_held_out(open_here(written_here))
    assert said.what == "EMO-1-shout is the held-out sequence FREE under another name"
    assert said.confidence == "certain" and "0.0 levels" in said.evidence
    assert said.remedy.endswith("--capture.ignore-sequences EMO-1-shout")
    assert str(said).split(":")[0] in DOCUMENT
    ignored = open_here(written_here, ignore_sequences=("EMO-1-shout",))
    assert diagnose_held_out(ignored) == []


def test_a_cut_of_the_held_out_sequence_is_named_by_its_codes(written_here):
    poses = written_here.world_from_head["EXP-2-eyes"]
    expr = written_here.expr["EXP-2-eyes"].copy()
    expr[:3] = written_here.expr["FREE"][1:]
    place = written_here.folder / "sequences/EXP-2-eyes/tracking/blendshapes.npz"
    write_driving(place, expr=expr, world_from_head=poses)
    (said,) = diagnose_held_out(open_here(written_here))
    assert said.what == "EXP-2-eyes has frames of the held-out sequence FREE"
    assert said.confidence == "likely"
    assert said.evidence.startswith("3 of 4 different driving codes of FREE")
    assert said.remedy.endswith("--capture.ignore-sequences EXP-2-eyes")
    assert f"| {said} |" in DOCUMENT


def test_codes_at_rest_are_no_overlap(written_here):
    for sequence in written_here.sequences:
        expr = written_here.expr[sequence].copy()
        expr[:3] = 0
        place = written_here.folder / f"sequences/{sequence}/tracking/blendshapes.npz"
        poses = written_here.world_from_head[sequence]
        write_driving(place, expr=expr, world_from_head=poses)
    assert diagnose_held_out(open_here(written_here)) == []


@pytest.mark.parametrize(
    ("changes", "evidence"),
    [
        ({"held_out_sequence": "SEN-1"}, "there is no sequence 'SEN-1'"),
        ({"held_out_camera": "222200099"}, "there is no camera '222200099'"),
        ({"ignore_sequences": ("EXP",)}, "nothing is left to train on"),
    ],
)
def test_what_cannot_be_held_out_is_named(written_here, changes, evidence):
    (said,) = diagnose_held_out(open_here(written_here, **changes))
    assert said.what == "what is to be held out cannot be"
    assert said.confidence == "certain" and evidence in said.evidence
    assert "--capture.held-out-sequence" in said.remedy
    assert f"| {said} |" in DOCUMENT


def test_a_prefix_of_several_sequences_is_named(written_here):
    sequences = written_here.folder / "sequences"
    shutil.copytree(sequences / "FREE", sequences / "EXP-5-mouth")
    (said,) = diagnose_held_out(open_here(written_here, held_out_sequence="EXP"))
    assert "it could be EXP-2-eyes, EXP-5-mouth" in said.evidence
    assert f"| {said} |" in DOCUMENT


def test_stills_tell_nothing(written_here, tmp_path):
    capture = open_here(written_here)
    still = np.full((48, 32, 3), 90, np.uint8)

    @dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
    class Still(type(capture)):
        def rgb(self, timestep, camera_id):
            return still

    fields = {f.name: getattr(capture, f.name) for f in dataclasses.fields(capture)}
    assert diagnose_held_out(Still(**fields)) == []
