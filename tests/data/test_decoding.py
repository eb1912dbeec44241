"""Videos as phones, mattings and damaged recordings write them."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.data.decoding import decode, probe
from npga_jax.data.nersemble_survey import survey_nersemble
from npga_jax.data.opening import open_capture

FRONT = "222200037"
WIDTH, HEIGHT = 32, 48


def write(
    path: Path,
    frames: np.ndarray,
    *,
    moments: list[int] | None = None,
    rotation: int = 0,
    mirrored: bool = False,
) -> Path:
    """Writes [T, H, W, 3] uint8 at 24 moments a second, lossless."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p"
        stream.options = {"qp": "0", "preset": "ultrafast"}
        if rotation or mirrored:
            stream.set_display_rotation(rotation, hflip=mirrored)
        for frame, moment in zip(frames, moments or range(len(frames)), strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = moment, Fraction(1, 24)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def corner_picture() -> np.ndarray:
    """Black, with a white upper left corner and a grey upper right one."""
    frame = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    frame[:, :8, :8], frame[:, :8, -8:] = 255, 128
    return frame


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_frames_are_turned_as_they_are_to_be_shown(tmp_path, rotation):
    path = write(tmp_path / "a.mp4", corner_picture(), rotation=rotation)
    frames = []
    decode(path, "rgb", 1, frames.append)
    with av.open(str(path)) as container:
        angle = next(container.decode(video=0)).rotation  # Counterclockwise.
    assert angle % 360 in (rotation, -rotation % 360)
    expected = np.rot90(corner_picture()[0], angle // 90)
    assert np.abs(frames[0].astype(int) - expected).max() < 3
    info = probe(path, "rgb")
    assert (info.height, info.width) == expected.shape[:2]


def test_mirrored_frames_are_mirrored_back(tmp_path):
    path = write(tmp_path / "a.mp4", corner_picture(), mirrored=True)
    frames = []
    decode(path, "rgb", 1, frames.append)
    assert np.abs(frames[0].astype(int) - corner_picture()[0, :, ::-1]).max() < 3


def test_other_angles_are_refused_with_the_angle(tmp_path):
    path = write(tmp_path / "a.mp4", corner_picture(), rotation=30)
    with pytest.raises(InputError, match=r"turned by -?30 degrees"):
        probe(path, "rgb")
    with pytest.raises(InputError, match=r"turned by -?30 degrees"):
        decode(path, "rgb", 1, lambda _: None)


def levels(*values: int) -> np.ndarray:
    return np.stack([np.full((HEIGHT, WIDTH, 3), v, np.uint8) for v in values])


def test_frames_are_put_where_their_time_stamps_say(tmp_path):
    path = write(tmp_path / "a.mp4", levels(0, 50, 150, 200), moments=[0, 1, 3, 4])
    info = probe(path, "rgb")
    assert info.fps == pytest.approx(24)
    assert (info.contents.num_frames, info.contents.missing) == (5, (2,))
    frames = []
    contents = decode(path, "rgb", 1, frames.append)
    assert contents == info.contents
    seen = np.round([f.mean() for f in frames])
    assert np.abs(seen[[0, 1, 3, 4]] - [0, 50, 150, 200]).max() <= 2
    frames.clear()
    decode(path, "rgb", 3, frames.append)
    assert [int(round(f.mean(), -1)) for f in frames] == [0, 150]


def test_more_gaps_than_frames_are_refused(tmp_path):
    path = write(tmp_path / "a.mp4", levels(0, 1, 2, 3), moments=[0, 1, 2, 90])
    with pytest.raises(InputError, match="leave out more frames than there are"):
        probe(path, "rgb")


def test_a_camera_that_lacks_a_frame_is_paired_by_time(damaged, fresh):
    place = damaged / f"074/sequences/FREE/images/cam_{FRONT}.mp4"
    write(place, levels(0, 50, 150), moments=[0, 1, 3])
    capture = open_capture("074", damaged, fresh, progress=False)
    free = [t for t in capture.timesteps if t.sequence == "FREE"]
    assert [t.frame_id for t in free] == [0, 1, 3]
    seen = [capture.rgb(t, FRONT).mean() for t in free]
    assert np.abs(np.array(seen) - [0, 50, 150]).max() <= 2
    assert any(f"missing in images of camera {FRONT}" in n for n in capture.notes)
    again = open_capture("074", damaged, fresh, progress=False)
    assert again.timesteps == capture.timesteps


def test_mattes_of_another_length_than_the_moments_are_refused(damaged, fresh):
    folder = damaged / "074/sequences/FREE"
    write(folder / f"images/cam_{FRONT}.mp4", levels(0, 50, 150), moments=[0, 1, 3])
    write(folder / f"alpha_maps/cam_{FRONT}.mp4", levels(255, 255, 255))
    with pytest.raises(InputError, match=r"has 3 frames, but .* has 4: .*time stamps"):
        open_capture("074", damaged, fresh, progress=False)


def ball(inside: int, outside: int) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    is_inside = (x - WIDTH / 2) ** 2 + (y - HEIGHT / 2) ** 2 < 100
    matte = np.where(is_inside, inside, outside).astype(np.uint8)
    return np.repeat(np.repeat(matte[None, ..., None], 3, -1), 4, 0)


@pytest.mark.parametrize(
    ("inside", "outside", "message"),
    [(1, 0, "brightest pixel is 1 of 255"), (0, 255, "it seems inverted")],
)
@pytest.mark.parametrize("is_decoded", [False, True])
def test_mattes_of_other_levels_are_refused(
    damaged, fresh, inside, outside, message, is_decoded
):
    path = damaged / f"074/sequences/FREE/alpha_maps/cam_{FRONT}.mp4"
    frames = ball(inside, outside)
    if is_decoded:  # The first frame tells nothing.
        frames[0] = 0
    write(path, frames)
    with pytest.raises(InputError, match=message) as error:
        open_capture("074", damaged, fresh, progress=False, decode=is_decoded)
    assert "--capture.no-mattes" in str(error.value)
    survey = survey_nersemble(damaged, "074", replace(fresh, mattes=False))
    assert not survey.problems


def test_label_maps_that_claim_more_than_they_are_are_not_unpacked(tmp_path):
    path = tmp_path / "maps.npz"
    np.savez_compressed(path, labels=np.zeros((2, 9000, 9000), np.uint8))
    with pytest.raises(InputError, match=r"maps of at most .* Nothing of it was unp"):
        probe(path, "labels")
