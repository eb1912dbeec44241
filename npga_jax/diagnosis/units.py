"""Whether clouds and cameras are in metres.

Pictures tell how large a cloud is beside the distance of the cameras; which of both is
in metres, the size of a head tells.
"""

import dataclasses

import numpy as np

from npga_jax.diagnosis.findings import Confidence, Diagnosis
from npga_jax.diagnosis.scoring import meet
from npga_jax.diagnosis.view import Scene, View

RATIOS = (1.0, 1000.0, 0.001, 100.0, 0.01, 10.0, 0.1, 4.0, 0.25)
"""By which lengths are usually wrong, and 1. 4: NPHM's units, FLAME's metres x 4."""
_HEAD_RADIUS = 0.12
"""Metres: the usual median distance of a cloud's points from their middle."""
_HEADS = 0.03, 0.3
_HULLS = 0.04, 1.6
"""Metres: the radius of what mattes show of a person, with or without shoulders."""
_HULL_RADIUS = 0.25
_NAMES = {
    1000.0: "in millimetres",
    100.0: "in centimetres",
    10.0: "in decimetres",
    4.0: "in NPHM's units (FLAME's metres x 4)",
}
_POSES = "the translations of 'world_2_cam' in calibration/camera_params.json"


def rescale(scene: Scene, ratio: float) -> Scene:
    """Makes clouds larger by `ratio` beside the cameras' distances.

    Where the cloud then has the size of a head rather than before, it is the cloud that
    changes, else the cameras.
    """
    if scene.cloud is None or ratio == 1.0:
        return scene
    if not is_cloud_wrong(scene, ratio):
        return scene._replace(
            views=tuple(_with_lengths(view, 1 / ratio) for view in scene.views)
        )
    xyz = np.float32(ratio) * scene.cloud.xyz
    return scene._replace(cloud=dataclasses.replace(scene.cloud, xyz=xyz))


def say_ratio(
    scene: Scene, ratio: float, confidence: Confidence, evidence: str
) -> Diagnosis:
    """Says what `rescale` changes.

    Args:
      scene: As given.
      ratio: Not 1.
      confidence: That it is so.
      evidence: For it.
    """
    if is_cloud_wrong(scene, ratio):
        what, whose = f"the point clouds are {unit(1 / ratio)}", "all their points"
        divisor = 1 / ratio
    else:
        what = f"the positions of all cameras are {unit(ratio)}"
        whose, divisor = _POSES, ratio
    return Diagnosis(what, confidence, evidence, _divide(whose, divisor))


def diagnose_metres(scene: Scene) -> list[Diagnosis]:
    """Says so if clouds (else what the mattes enclose) have not the size of a person.

    No picture shows it, so that it is never certain.
    """
    if scene.cloud is not None:
        radius, usual, bounds = _radius(scene), _HEAD_RADIUS, _HEADS
        whose = "half of the cloud's points are"
        what = "point clouds and positions of all cameras are"
        remedy = f"all points, and {_POSES},"
    else:
        place = meet(scene.views)
        if place is None:
            return []
        radius, usual, bounds = place[1], _HULL_RADIUS, _HULLS
        whose = "what the mattes show is"
        what, remedy = "the positions of all cameras are", _POSES
    if bounds[0] <= radius <= bounds[1]:
        return []
    by = min(RATIOS[1:], key=lambda f: abs(np.log(radius / f / usual)))
    return [
        Diagnosis(
            f"{what} {unit(by)}",
            "likely",
            f"{whose} within {radius:.3g} of its middle, in a person within about "
            f"{usual:g} m",
            _divide(remedy, by),
        )
    ]


def unit(factor: float) -> str:
    """What lengths are that are too large by `factor`: "in millimetres"."""
    too = f"too large by {factor:g}" if factor > 1 else f"too small by {1 / factor:g}"
    return _NAMES.get(round(factor, 6), too)


def unlike_head(scene: Scene, ratio: float = 1.0) -> float:
    """By how much a cloud has another size than a head: 0, or more.

    Args:
      scene: With a cloud.
      ratio: What the cloud is multiplied by before.
    """
    return abs(float(np.log(max(_radius(scene), 1e-12) * ratio / _HEAD_RADIUS)))


def is_cloud_wrong(scene: Scene, ratio: float) -> bool:
    """Whether a cloud that is made larger by `ratio` is more like a head."""
    return unlike_head(scene, ratio) < unlike_head(scene)


def _radius(scene: Scene) -> float:
    assert scene.cloud is not None
    xyz = scene.cloud.xyz
    return float(np.median(np.linalg.norm(xyz - np.median(xyz, axis=0), axis=1)))


def _with_lengths(view: View, factor: float) -> View:
    pose = view.camera.world2cam.copy()
    pose[:3, 3] *= factor
    return view._replace(camera=dataclasses.replace(view.camera, world2cam=pose))


def _divide(whose: str, divisor: float) -> str:
    by = f"{divisor:g}" if divisor > 1 else f"{1 / divisor:g}"
    return f"{'divide' if divisor > 1 else 'multiply'} {whose} by {by}"
