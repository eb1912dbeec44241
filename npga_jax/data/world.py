"""Whether cameras, clouds and heads are in metres of one world, and normals outward."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from npga_jax.data.capture import Camera, PointCloud
from npga_jax.data.point_labels import project, visible_points

_CLOUD_RADIUS = 0.01, 5.0
"""Metres: bounds of the median distance of a cloud's points from their middle."""
_CAMERA_DISTANCE = 0.05, 20.0
"""Metres: bounds of the median distance of cameras from the person."""
_TYPICAL_RADIUS, _TYPICAL_DISTANCE = 0.12, 1.0
_MAX_HEAD_DISTANCE = 5.0
_NUM_POINTS = 20_000
_MIN_AGREEMENT = 0.7


def say_wrong_world(
    cameras: Sequence[Camera],
    cloud: PointCloud | None,
    heads: np.ndarray,
    *,
    poses: str = "'world_2_cam' in camera_params.json",
) -> str:
    """Says what is not in metres of one world.

    Args:
      cameras: The rig.
      cloud: Of one frame, if there is one.
      heads: [T, 3] positions of heads, world; may be empty.
      poses: Where the cameras' poses are from, for messages.

    Returns:
      A sentence, or "" if nothing is wrong or nothing can be told.
    """
    middle = None
    if cloud is not None:
        middle = np.median(cloud.xyz, axis=0)
        radius = float(np.median(np.linalg.norm(cloud.xyz - middle, axis=1)))
        if not _CLOUD_RADIUS[0] <= radius <= _CLOUD_RADIUS[1]:
            return (
                f"the point clouds are not in metres: half of the points are within "
                f"{radius:.3g} of their middle. Divide them by "
                f"{_factor(radius / _TYPICAL_RADIUS)}."
            )
    elif len(heads):
        middle = np.median(heads, axis=0)
    if middle is None or not cameras:
        return ""
    places = [-c.world2cam[:3, :3].T @ c.world2cam[:3, 3] for c in cameras]
    distance = float(np.median([np.linalg.norm(p - middle) for p in places]))
    if not _CAMERA_DISTANCE[0] <= distance <= _CAMERA_DISTANCE[1]:
        return (
            f"the cameras are not in metres of the world that the person is in: they "
            f"are {distance:.4g} from it. Divide the translations of "
            f"{poses} by {_factor(distance / _TYPICAL_DISTANCE)} (or "
            "else say where the person is in the cameras' world)."
        )
    unseen = [c.camera_id for c in cameras if not _is_before(c, middle)]
    if 2 * len(unseen) > len(cameras):
        return (
            f"the person is behind or beside {', '.join(unseen)}: {poses} "
            "must take world points to the camera (not the other "
            "way), with OpenCV axes (x right, y down, z forward; OpenGL's differ)."
        )
    if cloud is not None and len(heads):
        apart = float(np.linalg.norm(np.median(heads, axis=0) - middle))
        if apart > _MAX_HEAD_DISTANCE:
            return (
                f"world_from_head of the driving codes puts heads {apart:.4g} m from "
                "the point clouds: both must be in metres of the same world."
            )
    return ""


def normal_sign(cameras: Sequence[Camera], cloud: PointCloud) -> int:
    """Finds out which side of the surface a cloud's normals are on.

    Where cameras see a surface, its outward normal points to them.

    Returns:
      1 if they point outward (or there are none), -1 if they point inward, 0 if
      neither: then they say nothing.
    """
    if cloud.normals is None:
        return 1
    chosen = np.linspace(0, len(cloud.xyz) - 1, min(len(cloud.xyz), _NUM_POINTS))
    xyz, normals = (x[chosen.astype(int)] for x in (cloud.xyz, cloud.normals))
    known = (normals**2).sum(-1) > 0.25
    outward = inward = 0
    for camera in cameras:
        seen = visible_points(camera, xyz, None)[0] & known
        centre = -camera.world2cam[:3, :3].T @ camera.world2cam[:3, 3]
        toward = ((centre - xyz[seen]) * normals[seen]).sum(-1)
        outward += int((toward > 0).sum())
        inward += int((toward < 0).sum())
    if outward >= _MIN_AGREEMENT * (outward + inward):
        return 1
    return -1 if inward >= _MIN_AGREEMENT * (outward + inward) else 0


def turn_normals(cloud: PointCloud, sign: int) -> PointCloud:
    """A cloud with its normals outward, by what `normal_sign` found of it."""
    if cloud.normals is None or sign == 1:
        return cloud
    return dataclasses.replace(cloud, normals=sign * cloud.normals)


def _is_before(camera: Camera, point: np.ndarray) -> bool:
    """Whether a camera sees a point, at most half an image beside its image."""
    pixels, depth = project(camera, point[None])
    size = np.array([camera.width, camera.height])
    return bool(depth[0] > 0 and (np.abs(pixels[0] / size - 0.5) < 1).all())


def _factor(ratio: float) -> str:
    return f"{10.0 ** np.round(np.log10(max(ratio, 1e-12))):g}"
