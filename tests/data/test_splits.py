import itertools
from dataclasses import replace

import pytest

from npga_jax.core.errors import InputError
from npga_jax.data.capture import match_sequences
from npga_jax.data.splits import holdout_split

FRONT = "222200037"


def pairs(views):
    return {(v.timestep.index, c) for v in views for c in v.cameras}


def test_splits_are_disjoint_and_complete(capture):
    split = holdout_split(capture, "FREE", FRONT)
    parts = [pairs(p) for p in (split.train, split.novel_view, split.self_reenactment)]
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(parts, 2))
    assert set().union(*parts) == {
        (t.index, c) for t in capture.timesteps for c in capture.cameras
    }


def test_held_out_things_are_never_trained_on(capture):
    split = holdout_split(capture, "EXP-2", FRONT)
    assert {v.timestep.sequence for v in split.train} == {"FREE"}
    assert FRONT not in {c for v in split.train for c in v.cameras}
    assert {v.cameras for v in split.novel_view} == {(FRONT,)}
    assert {v.timestep.sequence for v in split.self_reenactment} == {"EXP-2-eyes"}


def test_no_sequence_need_be_held_out(capture):
    split = holdout_split(capture, "", FRONT)
    assert len(split.train) == len(capture.timesteps)
    assert not split.self_reenactment and split.novel_view


def test_unknown_names_list_those_there_are(capture):
    with pytest.raises(InputError, match=r"no sequence 'SEN-01'.*EXP-2-eyes, FREE"):
        holdout_split(capture, "SEN-01", FRONT)
    with pytest.raises(InputError, match=f"no camera '037'.*{FRONT}"):
        holdout_split(capture, "FREE", "037")


def test_nothing_to_train_on_is_an_error(capture):
    alone = replace(
        capture,
        sequences=("FREE",),
        timesteps=tuple(t for t in capture.timesteps if t.sequence == "FREE"),
    )
    with pytest.raises(InputError, match=r"nothing is left.*no other sequence"):
        holdout_split(alone, "FREE", FRONT)
    with pytest.raises(InputError, match=r"nothing is left.*no other camera"):
        holdout_split(replace(capture, cameras=(FRONT,)), "FREE", FRONT)


def test_prefix_stops_at_the_end_of_a_word():
    names = ("SEN-1-a", "SEN-10-b", "EXP-2-eyes")
    assert match_sequences(names, "SEN-1") == ("SEN-1-a",)
    assert match_sequences(names, "SEN") == ("SEN-1-a", "SEN-10-b")
    assert match_sequences(names, "EXP-2-e") == ("EXP-2-eyes",)
    assert match_sequences(names, "") == ()


def test_ambiguous_prefix_is_an_error(capture):
    two = replace(capture, sequences=("EXP-2-eyes", "EXP-3-cheeks"))
    with pytest.raises(InputError, match="ambiguous"):
        holdout_split(two, "EXP", FRONT)
