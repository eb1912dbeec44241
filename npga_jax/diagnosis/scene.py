"""Finds out what is wrong with cameras, clouds, mattes and images of one moment."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from npga_jax.diagnosis import units
from npga_jax.diagnosis.axes import diagnose_axes
from npga_jax.diagnosis.causes import Cause, list_causes, pose_causes
from npga_jax.diagnosis.findings import Diagnosis
from npga_jax.diagnosis.intrinsics import diagnose_intrinsics
from npga_jax.diagnosis.scoring import Match, known, match_scene, measures
from npga_jax.diagnosis.single import diagnose_single
from npga_jax.diagnosis.trials import (
    Trial,
    compare,
    is_refuted,
    is_rival,
    say_change,
    say_rivals,
)
from npga_jax.diagnosis.view import Scene

ALL = "all cameras"
_ROUNDS = 3
"""How many causes are looked for that come together."""
_SEEN = 0.5
"""Share of the points in the images from which on nothing is wrong with that."""
_ALIKE = 0.9
"""Of the best agreement: sizes with more of it are told apart by the size of heads."""


class _Hypothesis(NamedTuple):
    """A change of all cameras, and of the size of the clouds beside them."""

    causes: tuple[Cause, ...]
    ratio: float  # what clouds would be multiplied by, or cameras divided by


class _Tried(NamedTuple):
    hypothesis: _Hypothesis
    scene: Scene  # with it undone
    matches: list[Match]
    trial: Trial


def diagnose_scene(scene: Scene) -> list[Diagnosis]:
    """Says what is wrong with one moment.

    With a cloud, its points are compared with mattes and images; without one, mattes
    with each other; without these, the cameras' axes with where the heads are.

    Args:
      scene: Of all cameras; what is missing in it is not used.

    Returns:
      What was found; nothing if all agrees, or nothing can be told.
    """
    if len(scene.views) < 2:
        return []
    if scene.cloud is None and any(view.matte is None for view in scene.views):
        return diagnose_axes(scene) + diagnose_intrinsics(scene.views)
    found: list[Diagnosis] = []
    may_rescale = scene.cloud is not None
    for _ in range(_ROUNDS):
        tried = _try_all(scene, may_rescale=may_rescale)
        if not tried:
            break
        best = _choose(tried)
        found += _say(scene, best, tried)
        scene = best.scene
        may_rescale &= best.hypothesis.ratio == 1.0
    if scene.cloud is None:
        found += diagnose_intrinsics(scene.views)
    found += units.diagnose_metres(scene)
    return found + diagnose_single(scene)


def _try_all(scene: Scene, *, may_rescale: bool) -> list[_Tried]:
    """All hypotheses that hold for the whole rig."""
    before = match_scene(scene)
    there = known(scene, before)
    if not there and np.mean([m.inside for m in before]) > _SEEN:
        return []
    ratios = [
        ratio
        for ratio in (units.RATIOS if may_rescale else (1.0,))
        # From far away all is in the image: alone it tells nothing.
        if there or ratio == 1.0 or units.is_cloud_wrong(scene, ratio)
    ]
    hypotheses = [
        _Hypothesis(causes, ratio)
        for causes in ((), *((cause,) for cause in pose_causes()))
        for ratio in ratios
        if causes or ratio != 1.0
    ]
    hypotheses += [
        _Hypothesis((cause,), 1.0)
        for cause in list_causes()[len(pose_causes()) :]
        if there and cause.needs <= there and any(map(cause.is_seen_in, scene.views))
    ]
    tried = []
    for hypothesis in hypotheses:
        changed = _undo(scene, hypothesis)
        matches = _match_unless_worse(changed, before)
        if matches is None:
            continue
        trial = compare(before, matches)
        if trial.holds_for_all:
            tried.append(_Tried(hypothesis, changed, matches, trial))
    return tried


def _match_unless_worse(scene: Scene, before: Sequence[Match]) -> list[Match] | None:
    """As `match_scene`; None as soon as too many cameras speak against the change."""
    matches: list[Match] = []
    num_worse = 0
    ways = measures(scene)
    for measure, view, given in zip(ways, scene.views, before, strict=True):
        matches.append(measure(view))
        num_worse += compare([given], matches[-1:]).num_worse
        if is_refuted(num_worse, len(before)):
            return None
    return matches


def _undo(scene: Scene, hypothesis: _Hypothesis) -> Scene:
    views = scene.views
    for cause in hypothesis.causes:
        views = tuple(map(cause.undo, views))
    return units.rescale(scene._replace(views=views), hypothesis.ratio)


def _choose(tried: Sequence[_Tried]) -> _Tried:
    """The one that agrees best; of sizes that look alike, the one of a head."""
    best = max(tried, key=_agreement)
    if best.scene.cloud is None or best.hypothesis.ratio == 1.0:
        return best
    alike = [
        t
        for t in tried
        if t.hypothesis.causes == best.hypothesis.causes
        and _agreement(t) > _ALIKE * _agreement(best)
    ]
    return min(alike, key=lambda t: units.unlike_head(t.scene))


def _agreement(tried: _Tried) -> float:
    return float(np.mean([m.score for m in tried.matches]))


def _say(scene: Scene, best: _Tried, tried: Sequence[_Tried]) -> list[Diagnosis]:
    """Says what a hypothesis consists of."""
    evidence = say_change(
        match_scene(scene), best.matches, of_cloud=scene.cloud is not None
    )
    rivals = [t for t in tried if t is not best and is_rival(best.matches, t.matches)]
    others = [t for t in rivals if t.hypothesis.causes != best.hypothesis.causes]
    if any(
        2 * sum(map(cause.is_borne_out, scene.views)) > len(scene.views)
        for cause in best.hypothesis.causes
    ):
        others = []
    is_seen = bool(known(scene, best.matches))  # Not only whether it is in the image.
    confidence = "certain" if best.trial.is_sure and is_seen else "likely"
    if others:
        confidence = "possible"
        evidence += say_rivals([_name(t.hypothesis) for t in others])
    said = [
        Diagnosis(
            cause.what.format(cameras=ALL),
            confidence,
            evidence,
            cause.remedy.format(cameras=ALL),
        )
        for cause in best.hypothesis.causes
    ]
    if best.hypothesis.ratio != 1.0:
        said.append(units.say_ratio(scene, best.hypothesis.ratio, confidence, evidence))
    return said


def _name(hypothesis: _Hypothesis) -> str:
    words = [cause.what.format(cameras=ALL) for cause in hypothesis.causes]
    if hypothesis.ratio != 1.0:
        factor = max(hypothesis.ratio, 1 / hypothesis.ratio)
        words.append(f"lengths of clouds and cameras differ by {factor:g}")
    return " and ".join(words)
