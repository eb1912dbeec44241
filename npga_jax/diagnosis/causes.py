"""What may be wrong with a capture, as changes that undo it."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from npga_jax.data import matte_levels
from npga_jax.diagnosis.view import View

_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)
_MIN_SHIFT = 0.01
"""Share of an image that a principal point must move by for anything to be told."""
SIZES = (2.0, 4.0, 0.5, 0.25)
"""By which images usually differ from those that intrinsics are for."""
_POSES = "'world_2_cam' in calibration/camera_params.json"
_KS = "'intrinsics' in calibration/camera_params.json"


class Cause(NamedTuple):
    """One thing that may be wrong. "{cameras}" stands for those that it concerns."""

    what: str
    remedy: str
    undo: Callable[[View], View]
    is_seen_in: Callable[[View], bool] = lambda view: True
    """Whether undoing it changes anything worth telling in a view."""
    needs: frozenset[str] = frozenset()
    """Of "points", "mattes", "colors": without them it cannot be told."""
    is_borne_out: Callable[[View], bool] = lambda view: False
    """Whether a view by itself speaks for it."""


def list_causes() -> list[Cause]:
    """All that may be wrong with cameras, mattes or images, the more usual first."""
    return [*pose_causes(), *_intrinsics_causes(), *_picture_causes()]


def pose_causes() -> list[Cause]:
    """The ways of writing a camera's pose that are not the one that is read."""
    return [
        Cause(
            "the matrices of {cameras} are camera-to-world, not world-to-camera",
            f"invert the matrices of {{cameras}} ({_POSES})",
            _with_pose(np.linalg.inv),
        ),
        Cause(
            "the matrices of {cameras} are for OpenGL axes (y up, z backward)",
            "negate the second and the third row of the matrices of {cameras} "
            f"({_POSES})",
            _with_pose(lambda pose: _OPENGL @ pose),
        ),
        Cause(
            "the matrices of {cameras} are camera-to-world with OpenGL axes (y up, z "
            "backward)",
            "invert the matrices of {cameras}, then negate their second and third row "
            f"({_POSES})",
            _with_pose(lambda pose: _OPENGL @ np.linalg.inv(pose)),
        ),
    ]


def _intrinsics_causes() -> list[Cause]:
    def from_below(view: View) -> View:
        return _with_K(view, {(1, 2): view.camera.height - view.camera.K[1, 2]})

    def from_right(view: View) -> View:
        return _with_K(view, {(0, 2): view.camera.width - view.camera.K[0, 2]})

    return [
        Cause(
            "cy of {cameras} is measured from the lower edge of the image",
            "replace cy by height - cy for {cameras} (the height of the images that K "
            f"is for; {_KS})",
            from_below,
            lambda view: _is_off(view, 1),
            frozenset({"points"}),
        ),
        Cause(
            "cx of {cameras} is measured from the right edge of the image",
            "replace cx by width - cx for {cameras} (the width of the images that K is "
            f"for; {_KS})",
            from_right,
            lambda view: _is_off(view, 0),
            frozenset({"points"}),
        ),
        Cause(
            "the principal point of {cameras} is measured from the lower right corner "
            "of the image",
            "replace cx by width - cx and cy by height - cy for {cameras} (the size of "
            f"the images that K is for; {_KS})",
            lambda view: from_right(from_below(view)),
            lambda view: _is_off(view, 0) and _is_off(view, 1),
            frozenset({"points"}),
        ),
        *(size_cause(factor) for factor in SIZES),
    ]


def size_cause(factor: float) -> Cause:
    """That K is for images `factor` times as large as it is taken for."""
    shown = f"{factor:g}" if factor > 1 else f"1/{1 / factor:g}"

    def undo(view: View) -> View:
        K = view.camera.K
        places = [(0, 0), (1, 1), (0, 2), (1, 2)]
        return _with_K(view, {place: K[place] / factor for place in places})

    return Cause(
        f"the intrinsics of {{cameras}} are for images {shown} times as large as said",
        f"multiply 'width' and 'height' by {shown} where they are stated in "
        f"calibration/camera_params.json, else state there the size that the "
        f"intrinsics are for",
        undo,
        needs=frozenset({"points"}),
    )


def _picture_causes() -> list[Cause]:
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "mirrored left to right": lambda x: x[:, ::-1],
        "upside down": lambda x: x[::-1, ::-1],
        "mirrored top to bottom": lambda x: x[::-1],
    }
    # Without colours to judge images by, they are taken to be turned with their mattes.
    kinds = (
        ("images and mattes", ("image", "matte"), {"mattes"}),
        ("images", ("image",), {"colors"}),
        ("mattes", ("matte",), {"mattes", "colors"}),
    )
    turned = [
        Cause(
            f"the {kind} of {{cameras}} are {way}",
            f"write the {kind} of {{cameras}} again, the right way round",
            _with_pictures(fields, turn),
            needs=frozenset(needs),
        )
        for way, turn in ways.items()
        for kind, fields, needs in kinds
    ]
    inverted = Cause(
        "the mattes of {cameras} are inverted",
        "write the mattes (alpha_maps) of {cameras} again with 255 on the person and 0 "
        "elsewhere, or pass --capture.no-mattes to use none at all",
        _with_pictures(("matte",), lambda x: 255 - x),
        _has_two_sides,
        frozenset({"mattes"}),
        _is_dark_inside,
    )
    return [*turned, inverted]


def _with_pose(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[View], View]:
    def undo(view: View) -> View:
        pose = change(view.camera.world2cam)
        return view._replace(camera=dataclasses.replace(view.camera, world2cam=pose))

    return undo


def _with_K(view: View, entries: dict[tuple[int, int], float]) -> View:
    K = view.camera.K.copy()
    for place, value in entries.items():
        K[place] = value
    return view._replace(camera=dataclasses.replace(view.camera, K=K))


def _with_pictures(
    fields: tuple[str, ...], turn: Callable[[np.ndarray], np.ndarray]
) -> Callable[[View], View]:
    def undo(view: View) -> View:
        known = {name: getattr(view, name) for name in fields}
        return view._replace(
            **{name: turn(x) for name, x in known.items() if x is not None}
        )

    return undo


def _has_two_sides(view: View) -> bool:
    """Whether a matte is not of one level: such a one is wrong either way."""
    return view.matte is not None and 0 < float((view.matte >= 128).mean()) < 1


def _is_dark_inside(view: View) -> bool:
    """Whether a matte is 255 in the upper corners and 0 in the middle."""
    if view.matte is None:
        return False
    levels = matte_levels(view.matte)
    return levels.corners > 128 > levels.centre


def _is_off(view: View, axis: int) -> bool:
    size = view.camera.height if axis else view.camera.width
    return abs(2 * view.camera.K[axis, 2] / size - 1) > _MIN_SHIFT
