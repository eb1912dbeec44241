import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.data.driving import tracked_folder
from npga_jax.data.nersemble import open_nersemble
from npga_jax.data.nersemble_survey import survey_nersemble
from npga_jax.data.opening import sequences_to_track
from tests.synthetic_capture import SEQUENCES, write_driving

EYES, FREE = SEQUENCES


@pytest.fixture
def cfg(small, tmp_path):
    """The tiny capture's settings, with a cache that a test may put codes into."""
    return replace(small, cache_dir=tmp_path / "cache")


def own(root: Path, sequence: str, name: str = "blendshapes") -> Path:
    return root / "074/sequences" / sequence / "tracking" / f"{name}.npz"


def tracked(root: Path, cfg, sequence: str) -> Path:
    folder = tracked_folder(root / "074", cfg.cache_dir)
    return folder / sequence / "tracking/nphm.npz"


def write_nphm(path: Path, written, sequence: str, **changes: object) -> None:
    """Codes as our tracker would write them: of another length and model."""
    poses = written.world_from_head[sequence]
    content = {"expr": np.full((len(poses), 5), 7.0), "model": "MonoNPHM"}
    write_driving(path, **(content | {"world_from_head": poses} | changes))


def open_074(root: Path, cfg, *, need_driving: bool = True):
    return open_nersemble(
        root, "074", cfg, progress=False, decode=False, need_driving=need_driving
    )


def test_several_files_need_a_name(damaged, cfg, written):
    write_nphm(own(damaged, EYES, "nphm"), written, EYES)
    write_nphm(tracked(damaged, cfg, FREE), written, FREE)
    with pytest.raises(InputError) as error:
        open_074(damaged, cfg)
    message = str(error.value)
    assert "--capture.driving blendshapes or --capture.driving nphm" in message
    assert f"{EYES}, {FREE}" in message and "more problem" not in message

    capture = open_074(damaged, replace(cfg, driving="nphm"))
    assert capture.driving_model == "MonoNPHM" and capture.expr_dim == 5
    assert all(capture.driving(t).expr[0] == 7 for t in capture.timesteps)
    assert capture.driving_paths[FREE] == tracked(damaged, cfg, FREE)
    capture = open_074(damaged, replace(cfg, driving="blendshapes"))
    assert capture.driving_model == "test" and capture.driving_name == "blendshapes"


def test_only_file_needs_no_name_and_may_be_called_differently(damaged, cfg):
    assert open_074(damaged, cfg).driving_name == "blendshapes"
    own(damaged, FREE).rename(own(damaged, FREE, "flame"))
    capture = open_074(damaged, cfg)
    assert len(capture.timesteps) == 8 and capture.driving_name == ""


def test_codes_of_the_cache_drive_a_capture_without_any(damaged, cfg, written):
    for sequence in SEQUENCES:
        own(damaged, sequence).unlink()
        write_nphm(tracked(damaged, cfg, sequence), written, sequence)
    assert open_074(damaged, cfg).driving_name == "nphm"
    assert sequences_to_track(damaged / "074", cfg) == ()
    # A copy of the capture at another place may be another state of it.
    shutil.move(damaged, damaged.with_name("moved"))
    with pytest.raises(InputError, match=r"have no driving codes.*track\.py"):
        open_074(damaged.with_name("moved"), cfg)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nphm", r"FREE has no driving file nphm\.npz.*track\.py.*driving blendshapes"),
        ("flame", r"have no driving file flame.*--capture\.driving blendshapes or"),
        ("nphm.npz", r"name alone.*like --capture\.driving nphm\."),
        ("tracking/nphm", r"name alone.*like --capture\.driving nphm\."),
    ],
)
def test_name_that_is_not_there_is_an_error(damaged, cfg, written, name, message):
    write_nphm(own(damaged, EYES, "nphm"), written, EYES)
    with pytest.raises(InputError, match=message) as error:
        open_074(damaged, replace(cfg, driving=name))
    assert ("track.py" in str(error.value)) == (name == "nphm")


def test_codes_of_two_trackers_are_not_mixed(damaged, cfg, written):
    own(damaged, FREE).unlink()
    write_nphm(tracked(damaged, cfg, FREE), written, FREE)
    with pytest.raises(InputError, match=r"same model.*--capture\.driving NAME"):
        open_074(damaged, cfg)
    # The tracker only asks where heads are.
    capture = open_074(damaged, cfg, need_driving=False)
    assert capture.has_driving(capture.timesteps[0])
    assert capture.has_driving(capture.timesteps[-1])


def test_sequence_without_codes_can_be_opened_for_tracking(damaged, cfg):
    own(damaged, FREE).unlink()
    with pytest.raises(InputError, match=r"FREE has no driving codes.*track\.py"):
        open_074(damaged, cfg)
    capture = open_074(damaged, replace(cfg, frame_stride=2), need_driving=False)
    frames = [(t.sequence, t.frame_id) for t in capture.timesteps]
    assert frames == [(EYES, 0), (EYES, 2), (FREE, 0), (FREE, 2)]
    assert [capture.has_driving(t) for t in capture.timesteps] == [1, 1, 0, 0]
    assert capture.rgb(capture.timesteps[3], "222200037").shape == (24, 16, 3)
    with pytest.raises(InputError, match=r"FREE of subject 074 has no.*track\.py"):
        capture.driving(capture.timesteps[2])


def test_capture_without_any_codes_can_be_opened_and_decoded_for_tracking(damaged, cfg):
    for sequence in SEQUENCES:
        own(damaged, sequence).unlink()
    capture = open_nersemble(damaged, "074", cfg, progress=False, need_driving=False)
    assert len(capture.timesteps) == 8 and capture.is_decoded
    assert capture.expr_names == () and capture.driving_model == ""


def test_poses_for_tracking_come_from_another_tracker_first(damaged, cfg, written):
    for sequence in SEQUENCES:
        write_nphm(own(damaged, sequence, "nphm"), written, sequence)
    own(damaged, FREE).unlink()
    capture = open_074(damaged, cfg, need_driving=False)
    assert capture.driving_paths == {
        EYES: own(damaged, EYES),
        FREE: own(damaged, FREE, "nphm"),
    }
    # Where there are several others, none is asked.
    shutil.copy(own(damaged, EYES), own(damaged, EYES, "flame"))
    capture = open_074(damaged, cfg, need_driving=False)
    assert set(capture.driving_paths) == {FREE}
    (note,) = [n for n in capture.notes if "several trackers" in n]
    assert note.startswith(f"{EYES}: ") and "(blendshapes, flame)" in note
    # A name is kept to, whoever asks.
    named = replace(cfg, driving="flame")
    assert set(open_074(damaged, named, need_driving=False).driving_paths) == {EYES}


def test_damaged_codes_are_a_problem_also_where_none_are_needed(damaged, cfg):
    own(damaged, FREE).write_bytes(b"PK")
    survey = survey_nersemble(damaged, "074", cfg, need_driving=False)
    assert len(survey.problems) == 1 and "cannot be read" in survey.problems[0]


def test_what_training_has_to_track(damaged, cfg, written):
    folder, nphm = damaged / "074", replace(cfg, driving="nphm")
    assert sequences_to_track(folder, cfg) == ()
    assert sequences_to_track(folder, replace(cfg, driving="flame")) == ()
    assert sequences_to_track(folder, nphm) == SEQUENCES
    own(damaged, EYES).unlink()
    # The others were tracked with something else: a person has to decide.
    assert sequences_to_track(folder, cfg) == ()
    own(damaged, FREE).unlink()
    assert sequences_to_track(folder, cfg) == SEQUENCES
    assert sequences_to_track(folder, replace(cfg, driving="flame")) == ()
    ignoring = replace(cfg, ignore_sequences=("FREE",))
    assert sequences_to_track(folder, ignoring) == (EYES,)
    # The tracker was interrupted after the first sequence.
    write_nphm(tracked(damaged, cfg, EYES), written, EYES)
    assert sequences_to_track(folder, cfg) == (FREE,)
    assert sequences_to_track(folder, nphm) == (FREE,)
