"""What one moment of a capture offers to be compared."""

from typing import NamedTuple

import numpy as np

from npga_jax.data import Camera, Capture, PointCloud, Timestep

MAX_POINTS = 3000


class View(NamedTuple):
    """What one camera sees."""

    camera: Camera
    matte: np.ndarray | None  # [H, W] uint8, 255 on the person
    image: np.ndarray | None  # [H, W, 3] uint8


class Scene(NamedTuple):
    """One moment, seen by all cameras."""

    views: tuple[View, ...]
    cloud: PointCloud | None  # world
    heads: np.ndarray  # [T, 3] where codes say that heads are, world; may be empty


def look_at_moment(capture: Capture) -> Scene:
    """Reads what there is of one moment: the first that has points, else the first.

    The first frames of sequences come first: they are read without the rest.

    Raises:
      InputError: if a file cannot be read.
    """
    moment = find_moment(capture)
    if moment is None:
        return Scene((), None, np.empty((0, 3)))
    cloud = capture.points(moment)
    mattes = {c: capture.alpha(moment, c) for c in capture.cameras}
    # Some alone would not be compared with the others'.
    has_mattes = all(matte is not None for matte in mattes.values())
    heads = [
        capture.driving(t).world_from_head[:3, 3]
        for t in capture.timesteps
        if capture.has_driving(t)
    ]
    return Scene(
        views=tuple(
            View(
                capture.camera(moment, camera),
                mattes[camera] if has_mattes else None,
                # Without points nothing is known that images could be compared with.
                capture.rgb(moment, camera) if cloud else None,
            )
            for camera in capture.cameras
        ),
        cloud=None if cloud is None else thin_out(cloud),
        heads=np.array(heads).reshape(-1, 3),
    )


def find_moment(capture: Capture) -> Timestep | None:
    """The moment to look at, or None in a capture without any."""
    with_points = [t for t in capture.timesteps if capture.has_points(t)]
    from_start = [t for t in with_points if t.frame_id == 0]
    return next(iter([*from_start, *with_points, *capture.timesteps]), None)


def thin_out(cloud: PointCloud) -> PointCloud:
    """At most `MAX_POINTS` points of a cloud, evenly through the file."""
    if len(cloud.xyz) <= MAX_POINTS:
        return cloud
    chosen = np.linspace(0, len(cloud.xyz) - 1, MAX_POINTS).astype(int)
    normals = None if cloud.normals is None else cloud.normals[chosen]
    return PointCloud(cloud.xyz[chosen], cloud.rgb[chosen], normals)
