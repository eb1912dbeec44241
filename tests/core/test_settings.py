"""Settings that state bounds beside the field, and what they need to have an effect."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.core.settings import (
    Only,
    Range,
    check_effects,
    check_ranges,
    differences,
    from_json,
    option,
    walk,
)


@dataclasses.dataclass(frozen=True)
class Inner:
    weight: float = 1.0
    share: Annotated[float, Range(0, 1, is_open=True)] = 0.5
    start: Annotated[float, Range(0, 1), Only("inner.weight")] = 0.2
    kind: Literal["good", "fair", "none"] = "good"


@dataclasses.dataclass(frozen=True)
class Settings:
    steps: Annotated[int, Range(1, 100)] = 10
    num_views: Annotated[int, Only("inner.kind", ("good", "fair"))] = 4
    maybe: Annotated[float | None, Only("is_on"), Only("inner.weight")] = None
    is_on: bool = True
    folder: Path | None = None
    names: tuple[str, ...] = ()
    inner: Inner = Inner()


def settings(**changes) -> Settings:
    """Settings with fields of `Inner` given as inner_field."""
    prefix = "inner_"
    inner = {k: changes.pop(k) for k in list(changes) if k.startswith(prefix)}
    return Settings(
        **changes, inner=Inner(**{k.removeprefix(prefix): v for k, v in inner.items()})
    )


def test_all_fields_are_found_with_their_marks():
    found = {field.name: field for field in walk(Settings())}
    assert list(found)[:2] == ["steps", "num_views"]
    assert found["inner.share"].range == Range(0, 1, is_open=True)
    assert found["inner.weight"].range == Range(0, math.inf)
    assert found["maybe"].conditions == (Only("is_on"), Only("inner.weight"))
    assert "inner" not in found
    assert option("inner.num_views") == "--inner.num-views"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "--steps 0: expected a whole number that is at least 1 and at"),
        ({"steps": 101}, "--steps 101.*at most 100"),
        ({"num_views": -1}, "--num-views -1: .* at least 0"),
        ({"maybe": -0.5}, "--maybe -0.5: expected a finite number"),
        ({"maybe": math.nan}, "--maybe nan"),
        ({"inner_weight": math.inf}, "--inner.weight inf"),
        ({"inner_share": 0.0}, "--inner.share 0.0.*more than 0 and at most 1"),
        ({"inner_start": 1.01}, "--inner.start 1.01.*at most 1"),
    ],
)
def test_numbers_out_of_their_range_are_refused_by_name(changes, message):
    with pytest.raises(InputError, match=message):
        check_ranges(settings(**changes))


def test_numbers_of_a_group_are_named_with_it():
    with pytest.raises(InputError, match=r"^--track\.num-views -1: expected"):
        check_ranges(settings(num_views=-1), "track.")


def test_numbers_at_their_bounds_are_taken():
    check_ranges(settings(steps=100, inner_share=1.0, inner_start=0.0, maybe=0.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"inner_weight": 0.0, "inner_start": 0.3},
            r"--inner\.start 0\.3 has no effect: it needs --inner\.weight to be on, "
            r"which is 0\.0\. Leave one",
        ),
        (
            {"num_views": 5, "inner_kind": "none"},
            "--num-views 5 has no effect: .*--inner.kind to be good or fair.*is none",
        ),
        ({"maybe": 0.0, "is_on": False}, "--maybe 0.0 has no effect.*--is-on"),
        ({"maybe": 0.1, "inner_weight": 0.0}, "--maybe 0.1 has no effect.*weight"),
    ],
)
def test_setting_without_effect_is_refused_by_name(changes, message):
    with pytest.raises(InputError, match=message):
        check_effects(settings(**changes), Settings())


def test_what_nobody_chose_may_be_without_effect():
    usual = settings(inner_start=0.9, inner_weight=0.0)
    check_effects(usual, usual)
    check_effects(settings(inner_weight=0.0, inner_kind="none"), Settings())
    check_effects(settings(inner_kind="fair", num_views=5, maybe=0.1), Settings())


FULL = Settings(folder=Path("some where"), names=("a", "b"), maybe=0.25)


@pytest.mark.parametrize("cfg", [Settings(), FULL])
def test_settings_come_back_from_json(cfg):
    plain = json.loads(json.dumps(dataclasses.asdict(cfg), default=str))
    assert from_json(Settings, plain) == cfg


def test_missing_and_unknown_settings_are_named():
    plain = json.loads(json.dumps(dataclasses.asdict(FULL), default=str))
    lacking = {k: v for k, v in plain.items() if k != "steps"}
    with pytest.raises(ValueError, match="there is no 'steps' in it"):
        from_json(Settings, lacking)
    with pytest.raises(ValueError, match=r"there is no 'inner\.share' in it"):
        from_json(Settings, plain | {"inner": {"weight": 1.0}})
    with pytest.raises(ValueError, match="'stepz' is not known"):
        from_json(Settings, plain | {"stepz": 1})
    with pytest.raises(ValueError, match=r"'inner\.w' is not known"):
        from_json(Settings, plain | {"inner": {**plain["inner"], "w": 1}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": "8"}, "'steps' is '8'; expected int"),
        ({"steps": 8.0}, "'steps' is 8.0; expected int"),
        ({"steps": True}, "'steps' is True; expected int"),
        ({"is_on": 1}, "'is_on' is 1; expected bool"),
        ({"maybe": "0.5"}, "'maybe' is '0.5'; expected float or NoneType"),
        ({"folder": 3}, "'folder' is 3; expected Path or NoneType"),
        ({"names": "ab"}, "'names' is 'ab'"),
        ({"names": ["a", 1]}, "'names' is 1; expected str"),
        ({"inner": {**dataclasses.asdict(Inner()), "kind": "bad"}}, "kind' is 'bad'"),
    ],
)
def test_values_of_another_type_are_named(change, message):
    plain = json.loads(json.dumps(dataclasses.asdict(FULL), default=str))
    with pytest.raises(ValueError, match=message):
        from_json(Settings, plain | change)


def test_a_whole_number_is_a_number():
    plain = json.loads(json.dumps(dataclasses.asdict(FULL), default=str))
    assert from_json(Settings, plain | {"maybe": 1}).maybe == 1


def test_bounds_hold_for_the_numbers_of_numpy():
    with pytest.raises(InputError, match="--steps 101: expected a whole number"):
        check_ranges(settings(steps=np.int64(101)))


def test_differences_are_named_but_for_those_that_may_be():
    other = settings(steps=11, is_on=False, inner_weight=2.0)
    assert differences(Settings(), other, {"is_on"}) == [
        "steps was 10, is now 11",
        "inner.weight was 1.0, is now 2.0",
    ]
