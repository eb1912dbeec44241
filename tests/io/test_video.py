"""Videos come back as they were written, or not at all."""

import av
import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.io.video import write_video


def _frames(count, height=31, width=45):
    """A grey that brightens from frame to frame."""
    for i in range(count):
        yield np.full((height, width, 3), 20 + 15 * i, np.uint8)


def _read(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(stream)]
        return frames, float(stream.average_rate), stream.codec_context


def test_round_trip_with_odd_sizes(tmp_path):
    path = tmp_path / "new" / "video.mp4"
    assert write_video(path, _frames(7), fps=24.33) == 7
    frames, rate, codec = _read(path)
    assert len(frames) == 7
    assert frames[0].shape == (32, 46, 3)
    assert codec.name == "h264" and codec.pix_fmt == "yuv420p"
    np.testing.assert_allclose(rate, 24.33, rtol=1e-3)
    for i, frame in enumerate(frames):
        assert abs(float(frame[:28, :40].mean()) - (20 + 15 * i)) < 3
    assert list(path.parent.iterdir()) == [path]


def test_details_survive_and_the_index_comes_first(tmp_path):
    path = tmp_path / "video.mp4"
    rng = np.random.default_rng(0)
    pattern = np.kron(rng.random((12, 16, 1)), np.ones((4, 4, 3)))
    frames = [np.uint8(255 * np.roll(pattern, 4 * i, axis=1)) for i in range(8)]
    write_video(path, frames, fps=24)
    read, _, _ = _read(path)
    # The encoder's own choice of quality gives 39 dB.
    error = np.mean((np.float64(read) - np.float64(frames)) ** 2)
    assert 10 * np.log10(255**2 / error) > 44
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_a_failing_source_leaves_nothing_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "video.mp4"
    path.write_bytes(b"old")

    def frames():
        yield from _frames(3)
        raise InputError("the render failed.")

    with pytest.raises(InputError, match="the render failed"):
        write_video(path, frames(), fps=24)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_place_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot be written"):
        write_video(tmp_path / "file" / "video.mp4", _frames(2), fps=24)
    (tmp_path / "taken.mp4").mkdir()
    with pytest.raises(InputError, match=r"taken\.mp4"):
        write_video(tmp_path / "taken.mp4", _frames(2), fps=24)


def test_wrong_frames_are_named(tmp_path):
    path = tmp_path / "video.mp4"
    with pytest.raises(ValueError, match="no frames"):
        write_video(path, [], fps=24)
    with pytest.raises(ValueError, match="float64"):
        write_video(path, [np.zeros((4, 4, 3))], fps=24)
    with pytest.raises(ValueError, match="the first is"):
        write_video(path, [*_frames(1), *_frames(1, height=20)], fps=24)
    assert not list(tmp_path.iterdir())
