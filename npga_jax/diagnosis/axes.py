"""Where the cameras look, for captures that have neither clouds nor mattes."""

from collections.abc import Sequence

import numpy as np

from npga_jax.diagnosis.causes import pose_causes
from npga_jax.diagnosis.findings import Diagnosis
from npga_jax.diagnosis.scoring import axes_meet
from npga_jax.diagnosis.trials import say_rivals
from npga_jax.diagnosis.view import Scene, View

_ASIDE, _TOWARD = 0.6, 0.3
"""Tangents of the angle by which the axes pass the person: beside it, and at it."""


def diagnose_axes(scene: Scene) -> list[Diagnosis]:
    """Says which way of writing poses would make the cameras look at the person.

    The person is where driving codes say that heads are, else where the axes meet.
    """
    given = _aside(scene.views, scene.heads)
    if given <= _ASIDE:
        return []
    tried = [
        (_aside([cause.undo(view) for view in scene.views], scene.heads), cause)
        for cause in pose_causes()
    ]
    fitting = [(aside, cause) for aside, cause in tried if aside <= _TOWARD]
    if not fitting:
        return []
    aside, cause = min(fitting, key=lambda pair: pair[0])
    where = "the heads of the codes" if len(scene.heads) else "the point that they meet"
    evidence = (
        f"as given the cameras look away from {where}, so changed they pass it by "
        f"{np.degrees(np.arctan(aside)):.0f} degrees"
    )
    others = [c for _, c in fitting if c is not cause]
    if others:
        evidence += say_rivals([c.what.format(cameras="all cameras") for c in others])
    return [
        Diagnosis(
            cause.what.format(cameras="all cameras"),
            "possible" if others else "likely",
            evidence,
            cause.remedy.format(cameras="all cameras"),
        )
    ]


def _aside(views: Sequence[View], heads: np.ndarray) -> float:
    """The median tangent by which axes pass the person; infinite if it is behind."""
    if len(heads):
        point = np.median(heads, axis=0)
    else:
        place = axes_meet(views)
        if place is None:
            return np.inf
        point = place[0]
    local = [
        v.camera.world2cam[:3, :3] @ point + v.camera.world2cam[:3, 3] for v in views
    ]
    return float(
        np.median([np.linalg.norm(p[:2]) / p[2] if p[2] > 0 else np.inf for p in local])
    )
