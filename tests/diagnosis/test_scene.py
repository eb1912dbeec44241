"""Every mistake is named, with how sure that is and what mends it; good ones are not.

docs/check-data.md shows the sentences: the last test holds it to what is said here.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from npga_jax.data.opening import open_capture
from npga_jax.data.settings import CaptureConfig
from npga_jax.diagnosis.scene import diagnose_scene
from npga_jax.diagnosis.view import Scene, look_at_moment
from npga_jax.diagnosis.whole import diagnose
from tests.diagnosis import wrong

ROOT = Path(__file__).parents[2]
NERSEMBLE = ROOT.parent / "shared" / "nersemble"
DOCUMENT = (ROOT / "docs" / "check-data.md").read_text()
FIRST, SECOND, FRONT = "222200042", "222200048", "222200037"
ALL = "all cameras"


class Case(NamedTuple):
    """A mistake, and what has to be said of it: parts of the sentences."""

    make: Callable[[Scene], Scene]
    what: tuple[str, ...]
    confidence: str
    remedy: str


def views(change, *which: int) -> Callable[[Scene], Scene]:
    return lambda scene: wrong.in_views(scene, change, which)


def flipped(change, *which: int, of=("matte", "image")) -> Callable[[Scene], Scene]:
    return views(wrong.pictured(change, *of), *which)


def both(first, second) -> Callable[[Scene], Scene]:
    return lambda scene: second(first(scene))


def inverse(pose: np.ndarray) -> np.ndarray:
    return np.linalg.inv(pose)


CASES = {
    "camera-to-world": Case(
        views(wrong.posed(inverse)),
        (f"the matrices of {ALL} are camera-to-world, not world-to-camera",),
        "certain",
        "invert the matrices",
    ),
    "OpenGL axes": Case(
        views(wrong.posed(lambda pose: wrong.OPENGL @ pose)),
        (f"the matrices of {ALL} are for OpenGL axes",),
        "certain",
        "negate the second and the third row",
    ),
    "camera-to-world with OpenGL axes": Case(
        views(wrong.posed(lambda pose: inverse(wrong.OPENGL @ pose))),
        (f"the matrices of {ALL} are camera-to-world with OpenGL axes",),
        "certain",
        "invert the matrices of all cameras, then negate",
    ),
    "cameras in millimetres": Case(
        views(wrong.posed(wrong.moved(1000))),
        (f"the positions of {ALL} are in millimetres",),
        "certain",
        "divide the translations of 'world_2_cam' in calibration/camera_params.json "
        "by 1000",
    ),
    "cameras times 4": Case(
        views(wrong.posed(wrong.moved(4))),
        (f"the positions of {ALL} are in NPHM's units (FLAME's metres x 4)",),
        "certain",
        "by 4",
    ),
    "clouds in millimetres": Case(
        lambda scene: wrong.scaled_cloud(scene, 1000),
        ("the point clouds are in millimetres",),
        "certain",
        "divide all their points by 1000",
    ),
    "clouds in centimetres": Case(
        lambda scene: wrong.scaled_cloud(scene, 100),
        ("the point clouds are in centimetres",),
        "certain",
        "divide all their points by 100",
    ),
    "clouds times 4": Case(
        lambda scene: wrong.scaled_cloud(scene, 4),
        ("the point clouds are in NPHM's units (FLAME's metres x 4)",),
        "certain",
        "divide all their points by 4",
    ),
    "all in millimetres": Case(
        both(
            views(wrong.posed(wrong.moved(1000))),
            lambda scene: wrong.scaled_cloud(scene, 1000),
        ),
        (f"point clouds and positions of {ALL} are in millimetres",),
        "likely",
        "divide all points, and the translations",
    ),
    "camera-to-world, in millimetres": Case(
        both(views(wrong.posed(wrong.moved(1000))), views(wrong.posed(inverse))),
        (
            f"the matrices of {ALL} are camera-to-world",
            f"the positions of {ALL} are in millimetres",
        ),
        "certain",
        "by 1000",
    ),
    "cy from the lower edge": Case(
        views(wrong.with_K(wrong.from_lower_edge)),
        (f"cy of {ALL} is measured from the lower edge",),
        "certain",
        "replace cy by height - cy",
    ),
    "cx from the right edge": Case(
        views(wrong.with_K(wrong.from_right_edge)),
        (f"cx of {ALL} is measured from the right edge",),
        "certain",
        "replace cx by width - cx",
    ),
    "cx and cy from the other corner": Case(
        views(wrong.with_K(wrong.from_corner)),
        (f"the principal point of {ALL} is measured from the lower right corner",),
        "certain",
        "replace cx by width - cx and cy by height - cy",
    ),
    "K of half the resolution": Case(
        views(wrong.scaled_K(0.5)),
        (f"the intrinsics of {ALL} are for images 1/2 times as large",),
        "certain",
        "multiply 'width' and 'height' by 1/2",
    ),
    "K of four times the resolution": Case(
        views(wrong.scaled_K(4)),
        (f"the intrinsics of {ALL} are for images 4 times as large",),
        "certain",
        "multiply 'width' and 'height' by 4",
    ),
    "all mirrored": Case(
        flipped(wrong.mirrored),
        (f"the images and mattes of {ALL} are mirrored left to right",),
        "certain",
        "write the images and mattes of all cameras again",
    ),
    "images mirrored, mattes not": Case(
        flipped(wrong.mirrored, of=("image",)),
        (f"the images of {ALL} are mirrored left to right",),
        "certain",
        "write the images of all cameras again",
    ),
    "all upside down": Case(
        flipped(wrong.upside_down),
        (f"the images and mattes of {ALL} are upside down",),
        "certain",
        "the right way round",
    ),
    "one camera mirrored": Case(
        flipped(wrong.mirrored, 0),
        (f"the images and mattes of {FIRST} are mirrored left to right",),
        "certain",
        f"write the images and mattes of {FIRST} again, the right way round, or leave "
        f"out with --capture.ignore-cameras {FIRST}",
    ),
    "two cameras mirrored": Case(
        flipped(wrong.mirrored, 0, 1),
        (f"the images and mattes of {FIRST}, {SECOND} are mirrored left to right",),
        "certain",
        f"--capture.ignore-cameras {FIRST} {SECOND}",
    ),
    "mattes inverted": Case(
        flipped(wrong.inverted, of=("matte",)),
        (f"the mattes of {ALL} are inverted",),
        "certain",
        "--capture.no-mattes",
    ),
    "mattes of one camera inverted": Case(
        flipped(wrong.inverted, 1, of=("matte",)),
        (f"the mattes of {SECOND} are inverted",),
        "certain",
        "255 on the person and 0 elsewhere",
    ),
    "one matrix camera-to-world": Case(
        views(wrong.posed(inverse), 1),
        (f"the matrices of {SECOND} are camera-to-world",),
        "certain",
        f"invert the matrices of {SECOND}",
    ),
    "a camera that looks elsewhere": Case(
        views(wrong.posed(wrong.moved(by=0.5)), 1),
        (f"camera {SECOND} does not see the cloud",),
        "certain",
        f"--capture.ignore-cameras {SECOND}",
    ),
    "two cameras exchanged": Case(
        lambda scene: wrong.exchanged(scene, 0, 1),
        (f"the videos of {FIRST} and {SECOND} are exchanged, or their matrices are",),
        "certain",
        f"exchange the matrices of {FIRST} and {SECOND}",
    ),
    "a cloud of another world": Case(
        lambda scene: wrong.shifted_cloud(scene, 1.0),
        ("do not see the cloud where the person is",),
        "certain",
        "of one world",
    ),
    "no clouds, camera-to-world": Case(
        both(wrong.without_cloud, views(wrong.posed(inverse))),
        (f"the matrices of {ALL} are camera-to-world",),
        "certain",
        "invert the matrices",
    ),
    "no clouds, mattes inverted": Case(
        both(wrong.without_cloud, flipped(wrong.inverted, of=("matte",))),
        (f"the mattes of {ALL} are inverted",),
        "certain",
        "--capture.no-mattes",
    ),
    "no clouds, one matte inverted": Case(
        both(wrong.without_cloud, flipped(wrong.inverted, 1, of=("matte",))),
        (f"the mattes of {SECOND} are inverted",),
        "likely",
        "255 on the person",
    ),
    "no clouds, K of half the resolution": Case(
        both(wrong.without_cloud, views(wrong.scaled_K(0.5))),
        (f"the intrinsics of {ALL} are for images 1/2 times as large",),
        "likely",
        "multiply 'width' and 'height' by 1/2",
    ),
    "no clouds, cameras in millimetres": Case(
        both(wrong.without_cloud, views(wrong.posed(wrong.moved(1000)))),
        (f"the positions of {ALL} are in millimetres",),
        "likely",
        "by 1000",
    ),
    "no mattes, all mirrored": Case(
        both(wrong.without_mattes, flipped(wrong.mirrored)),
        (f"the images of {ALL} are mirrored left to right",),
        "certain",
        "write the images of all cameras again",
    ),
    "neither mattes nor colours, clouds in millimetres": Case(
        both(wrong.without_pictures, lambda scene: wrong.scaled_cloud(scene, 1000)),
        ("the point clouds are in millimetres",),
        "likely",
        "divide all their points by 1000",
    ),
    "neither mattes nor clouds, OpenGL axes": Case(
        both(
            wrong.without_cloud,
            both(
                wrong.without_pictures,
                views(wrong.posed(lambda pose: wrong.OPENGL @ pose)),
            ),
        ),
        (f"the matrices of {ALL} are for OpenGL axes",),
        "likely",
        "negate the second and the third row",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_named(scene, name):
    case = CASES[name]
    said = diagnose_scene(case.make(scene))
    assert len(said) == len(case.what), said
    for diagnosis, what in zip(said, case.what, strict=True):
        assert what in diagnosis.what
        assert diagnosis.confidence == case.confidence
        assert re.search(r"\d", diagnosis.evidence) or "look away" in diagnosis.evidence
        assert f"| {name} |" in DOCUMENT
        assert without_numbers(diagnosis) in without_numbers(DOCUMENT)
    assert case.remedy in said[-1].remedy


def without_numbers(text: object) -> str:
    """What does not depend on how a processor rounds; cameras keep their names."""
    return re.sub(r"-?\d+(\.\d+)?(?=%| as given| so changed)", "#", str(text))


@pytest.mark.parametrize(
    "leave_out",
    [
        lambda scene: scene,
        wrong.without_cloud,
        wrong.without_mattes,
        wrong.without_pictures,
        lambda scene: wrong.without_cloud(wrong.without_pictures(scene)),
        lambda scene: scene._replace(views=scene.views[:2]),
        lambda scene: scene._replace(views=scene.views[:1]),
        lambda scene: scene._replace(views=()),
    ],
)
def test_nothing_is_said_of_good_captures(moment, scene, leave_out):
    assert diagnose_scene(leave_out(moment)) == []
    assert diagnose_scene(leave_out(scene)) == []


@pytest.mark.parametrize(
    "worsen",
    [
        lambda scene: wrong.part_of_cloud(scene, lambda xyz: xyz[:, 2] > 0.05),
        lambda scene: wrong.part_of_cloud(scene, lambda xyz: xyz[:, 0] > 0),
        flipped(lambda matte: np.where(matte > 250, matte, 0), of=("matte",)),
        flipped(lambda image: image // 2 + 60, of=("image",)),
        views(wrong.posed(wrong.moved(1.02))),
        views(wrong.with_K(lambda K, camera: K.__setitem__((1, 2), K[1, 2] + 6))),
    ],
    ids=["face", "half", "thin mattes", "colours", "2 % off", "6 pixels off"],
)
def test_nothing_is_said_of_captures_that_are_only_poor(scene, worsen):
    assert diagnose_scene(worsen(scene)) == []


in_full = pytest.mark.skipif(
    not NERSEMBLE.is_dir(), reason="shared/nersemble is not beside the project"
)


@in_full
@pytest.mark.parametrize("subject", ["074", "104"])
def test_nothing_is_said_of_captures_in_full_size(subject, tmp_path):
    cfg = CaptureConfig(
        driving="blendshapes", cache_dir=tmp_path, ignore_sequences=("EXP", "EMO")
    )
    capture = open_capture(subject, NERSEMBLE, cfg, progress=False, decode=False)
    assert diagnose_scene(look_at_moment(capture)) == []


@in_full
@pytest.mark.slow
@pytest.mark.parametrize("subject", ["074", "104"])
def test_nothing_is_said_of_captures_in_full(subject, tmp_path):
    cfg = CaptureConfig(driving="blendshapes", cache_dir=tmp_path)
    capture = open_capture(subject, NERSEMBLE, cfg, progress=False, decode=False)
    assert diagnose(capture) == []
