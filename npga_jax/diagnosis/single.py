"""Finds out which single cameras do not agree with the others, and why."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from npga_jax.diagnosis.causes import Cause, list_causes
from npga_jax.diagnosis.findings import Confidence, Diagnosis
from npga_jax.diagnosis.scoring import (
    Match,
    known,
    match_scene,
    match_view,
    measures,
)
from npga_jax.diagnosis.trials import ALIKE, compare, is_rival, say_change, say_rivals
from npga_jax.diagnosis.view import Scene

_MIN_CAMERAS = 3
"""Of fewer nobody can tell which one is wrong, without a cloud."""
_ONE_MAY_BE_WRONG = 4
"""From so many cameras on, the hull of the others outlives one that is wrong."""
_ODD = 0.6
"""Of the others' score: below it a camera is a stranger."""
_MAX_EXCHANGED = 6
"""Of how many that agree least it is asked whether two of them are exchanged."""
_UNSEEN = 0.5
"""Of the others' share of points in the image: below it a camera looks elsewhere."""
_FAR = 0.15
"""Score that cameras and cloud which have nothing to do with each other stay below."""


def diagnose_single(scene: Scene) -> list[Diagnosis]:
    """Says which cameras are wrong where most are right.

    Args:
      scene: After all that concerns the whole rig was undone.
    """
    if scene.cloud is None and len(scene.views) < _MIN_CAMERAS:
        return []
    tolerance = int(scene.cloud is None and len(scene.views) >= _ONE_MAY_BE_WRONG)
    before = match_scene(scene, tolerance=tolerance)
    scores = np.array([m.score for m in before])
    usual = float(np.median(scores))
    if usual < _FAR:
        return [_say_apart(scene, before)]
    odd = [i for i in range(len(scores)) if scores[i] < _ODD * usual]
    # Mattes alone are a weak witness: a hull fits many a matte.
    doubted = range(len(scores)) if scene.cloud is not None else odd
    explained, found = _find_causes(scene, before, doubted, tolerance)
    left = [int(i) for i in np.argsort(scores) if i not in explained]
    exchanged, said = _find_exchanged(scene, before, left[:_MAX_EXCHANGED])
    found += said
    for i in odd:
        if i not in explained and i not in exchanged:
            found += _say_odd(scene, before, i)
    return found


class _Tried(NamedTuple):
    """A cause undone in each camera alone."""

    cause: Cause
    matches: list[Match]
    holds: list[bool]


def _find_causes(
    scene: Scene, before: Sequence[Match], doubted: Collection[int], tolerance: int
) -> tuple[set[int], list[Diagnosis]]:
    """Finds causes that hold for some cameras each.

    Returns:
      Which cameras they explain, and what to say.
    """
    ways = measures(scene, tolerance=tolerance)
    there = known(scene, before)
    if "mattes" not in there:
        there -= {"points"}  # Colours alone do not tell how one camera is off.
    tried = []
    for cause in list_causes():
        if cause.needs <= there:
            after = [
                way(cause.undo(view)) if cause.is_seen_in(view) else match
                for way, view, match in zip(ways, scene.views, before, strict=True)
            ]
            trial = compare(before, after)
            holds = [
                i in doubted
                and trial.holds_for(i)
                # What does not change has to agree as well.
                and after[i].score > ALIKE * np.median([m.score for m in before])
                for i in range(len(before))
            ]
            tried.append(_Tried(cause, after, holds))
    groups: dict[int, list[int]] = {}
    for i in range(len(before)):
        fitting = [n for n, t in enumerate(tried) if t.holds[i]]
        if fitting:
            best = max(fitting, key=lambda n: tried[n].matches[i].score)
            groups.setdefault(best, []).append(i)
    explained: set[int] = set()
    found = []
    for number, members in groups.items():
        rivals = [
            t.cause
            for n, t in enumerate(tried)
            if n != number
            and all(t.holds[i] for i in members)
            and is_rival(_of(tried[number].matches, members), _of(t.matches, members))
        ]
        if scene.cloud is not None or not rivals:
            explained |= set(members)
            found.append(_say_cause(scene, before, members, tried[number], rivals))
    return explained, found


def _say_cause(
    scene: Scene,
    before: Sequence[Match],
    members: Sequence[int],
    tried: _Tried,
    rivals: Sequence[Cause],
) -> Diagnosis:
    ids = [scene.views[i].camera.camera_id for i in members]
    names = ", ".join(ids)
    is_seen = known(scene, before) >= {"mattes", "points"}
    confidence: Confidence = "certain" if is_seen else "likely"
    evidence = say_change(
        _of(before, members),
        _of(tried.matches, members),
        of_cloud=scene.cloud is not None,
    )
    if rivals:
        confidence = "possible"
        evidence += say_rivals([c.what.format(cameras=names) for c in rivals])
    return Diagnosis(
        tried.cause.what.format(cameras=names),
        confidence,
        evidence,
        f"{tried.cause.remedy.format(cameras=names)}, or leave out with "
        f"--capture.ignore-cameras {' '.join(ids)}",
    )


def _of(matches: Sequence[Match], members: Sequence[int]) -> list[Match]:
    return [matches[i] for i in members]


def _find_exchanged(
    scene: Scene, before: Sequence[Match], doubted: Sequence[int]
) -> tuple[set[int], list[Diagnosis]]:
    """Finds pairs of doubted cameras that have each other's videos."""
    done: set[int] = set()
    found = []
    for i in doubted:
        for j in doubted:
            if scene.cloud is None or not i < j or {i, j} & done:
                continue
            a, b = scene.views[i], scene.views[j]
            after = [
                match_view(a._replace(matte=b.matte, image=b.image), scene.cloud),
                match_view(b._replace(matte=a.matte, image=a.image), scene.cloud),
            ]
            trial = compare([before[i], before[j]], after)
            if not (trial.holds_for(0) and trial.holds_for(1)):
                continue
            done |= {i, j}
            names = f"{a.camera.camera_id} and {b.camera.camera_id}"
            found.append(
                Diagnosis(
                    f"the videos of {names} are exchanged, or their matrices are",
                    "certain",
                    say_change([before[i], before[j]], after),
                    f"exchange the matrices of {names}, or give their files each "
                    "other's names",
                )
            )
    return done, found


def _say_odd(scene: Scene, before: Sequence[Match], i: int) -> list[Diagnosis]:
    name = scene.views[i].camera.camera_id
    others = [m for k, m in enumerate(before) if k != i]
    inside = float(np.median([m.inside for m in others]))
    remedy = f"calibrate it again, or leave it out with --capture.ignore-cameras {name}"
    if scene.cloud is not None and before[i].inside < _UNSEEN * inside:
        return [
            Diagnosis(
                f"camera {name} does not see the cloud",
                "certain",
                f"{before[i].inside:.0%} of the points are in its image, {inside:.0%} "
                "in those of others",
                remedy,
            )
        ]
    if "mattes" not in known(scene, before):
        return []  # Colours alone also differ by light.
    usual = float(np.median([m.score for m in others]))
    return [
        Diagnosis(
            f"camera {name} does not agree with the others",
            "likely",
            f"its agreement is {before[i].score:.2f} of 1, that of others {usual:.2f}; "
            "none of the usual causes explains it",
            f"compare its video, matte and matrix with the others'; {remedy}",
        )
    ]


def _say_apart(scene: Scene, before: Sequence[Match]) -> Diagnosis:
    names = [
        view.camera.camera_id
        for view, match in zip(scene.views, before, strict=True)
        if match.score < _FAR
    ]
    inside = float(np.mean([m.inside for m in before]))
    if scene.cloud is None:
        return Diagnosis(
            "the mattes of all cameras do not show one thing at one place",
            "likely",
            "nothing of space is on the person in all of them, and none of the usual "
            "causes explains it",
            "look whether mattes and matrices belong to these videos",
        )
    return Diagnosis(
        f"cameras {', '.join(names)} do not see the cloud where the person is",
        "certain",
        f"{inside:.0%} of the points are in the images on average, and none of the "
        "usual causes explains it",
        "look whether clouds and matrices are of one world and of this capture",
    )
