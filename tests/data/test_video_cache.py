import collections
import errno
import os
import time
from dataclasses import replace

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.data import decoding as video
from npga_jax.data import video_cache
from npga_jax.data.opening import open_capture

FRONT = "222200037"


@pytest.fixture
def decoded(monkeypatch) -> list:
    """Names the files that are decoded."""
    names = []
    original = video.decode

    def decode(path, kind, stride, on_frame):
        names.append(f"{path.parent.parent.name}/{kind}/{path.stem}")
        return original(path, kind, stride, on_frame)

    monkeypatch.setattr(video, "decode", decode)
    return names


def open_074(root, cfg, **kwargs):
    return open_capture("074", root, cfg, progress=False, **kwargs)


def test_second_start_decodes_and_opens_nothing_but_one_header(
    damaged, fresh, decoded, monkeypatch
):
    open_074(damaged, fresh)
    assert len(decoded) == len(set(decoded)) == 18
    decoded.clear()
    probed = []
    original = video.probe
    monkeypatch.setattr(
        video, "probe", lambda path, kind: probed.append(path) or original(path, kind)
    )
    open_074(damaged, fresh)
    assert decoded == [] and len(probed) == 1


def test_changed_source_invalidates_only_itself(damaged, fresh, decoded):
    capture = open_074(damaged, fresh)
    before = capture.rgb(capture.timesteps[-1], FRONT)
    folder = damaged / "074/sequences"
    changed = folder / f"FREE/images/cam_{FRONT}.mp4"
    changed.write_bytes((folder / f"EXP-2-eyes/images/cam_{FRONT}.mp4").read_bytes())
    decoded.clear()
    capture = open_074(damaged, fresh)
    assert decoded == [f"FREE/rgb/cam_{FRONT}"]
    after = capture.rgb(capture.timesteps[-1], FRONT)
    np.testing.assert_array_equal(after, capture.rgb(capture.timesteps[3], FRONT))
    assert (before != after).any()


def test_touched_source_is_decoded_again(damaged, fresh, decoded):
    open_074(damaged, fresh)
    path = damaged / f"074/sequences/FREE/segmentation/cam_{FRONT}.npz"
    os.utime(path, ns=(1, 1))
    decoded.clear()
    open_074(damaged, fresh)
    assert decoded == [f"FREE/labels/cam_{FRONT}"]


def test_changed_colour_calibration_decodes_rgb_again(damaged, fresh, decoded):
    open_074(damaged, fresh)
    decoded.clear()
    eye = np.eye(3).tolist()
    serials = [FRONT, "222200042", "222200046"]
    (damaged / "074/calibration/color_calibration.json").write_text(
        str(dict.fromkeys(serials, eye)).replace("'", '"')
    )
    open_074(damaged, fresh)
    assert len(decoded) == 6 and all("/rgb/" in name for name in decoded)


def test_interrupted_decode_is_not_taken_for_whole(damaged, fresh, monkeypatch):
    original = video.resize
    calls = iter(range(1000))

    def resize(*args):
        if next(calls) == 14:  # In the middle of the fourth file.
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(video, "resize", resize)
    with pytest.raises(KeyboardInterrupt):
        open_074(damaged, fresh)
    assert len(list(fresh.cache_dir.rglob("*.npy"))) == 3
    assert not list(fresh.cache_dir.rglob("*.part"))
    monkeypatch.setattr(video, "resize", original)
    capture = open_074(damaged, fresh)
    assert len(list(fresh.cache_dir.rglob("*.npy"))) == 18
    assert capture.is_decoded


def test_array_without_its_sidecar_or_of_wrong_size_is_decoded_again(
    damaged, fresh, decoded
):
    open_074(damaged, fresh)
    arrays = sorted(fresh.cache_dir.rglob("cam_222200042.rgb.npy"))
    arrays[0].with_suffix(".json").unlink()
    arrays[1].write_bytes(arrays[1].read_bytes()[:-5])
    decoded.clear()
    open_074(damaged, fresh)
    assert len(decoded) == 2


def test_stale_parts_are_removed_and_fresh_ones_left(damaged, fresh):
    fresh.cache_dir.mkdir()
    open_074(damaged, fresh, decode=False)
    survey_folder = next(
        iter(open_074(damaged, fresh, decode=False).entries.values())
    ).array.parent
    survey_folder.mkdir(parents=True)
    stale, live = survey_folder / "a.npy.1.part", survey_folder / "b.npy.2.part"
    for path in (stale, live):
        path.write_bytes(b"x")
    os.utime(stale, (time.time() - 3600,) * 2)
    open_074(damaged, fresh)
    assert not stale.exists() and live.exists()


def test_disk_need_is_said_before_it_is_taken(damaged, fresh, capsys):
    open_capture("074", damaged, fresh)
    # 2 sequences * 3 cameras * 4 frames * 16 * 24 pixels * (3 + 1 + 1) bytes.
    first, *rest = [x for x in capsys.readouterr().err.splitlines() if "decoding" in x]
    assert "18 files" in first and "takes 0.0 MB" in first
    assert rest
    total = sum(p.stat().st_size for p in fresh.cache_dir.rglob("*.npy"))
    assert total == 2 * 3 * 4 * 16 * 24 * 5 + 18 * 128


def test_too_small_a_disk_is_an_error_before_decoding(
    damaged, fresh, decoded, monkeypatch
):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(
        video_cache.shutil, "disk_usage", lambda _: usage(10, 0, 46_079)
    )
    with pytest.raises(InputError, match=r"cache-dir.*frame-stride.*width"):
        open_074(damaged, fresh)
    assert decoded == []
    monkeypatch.setattr(
        video_cache.shutil, "disk_usage", lambda _: usage(10, 0, 46_080)
    )
    open_074(damaged, fresh)


def test_disk_that_fills_up_is_an_error_and_leaves_no_part(damaged, fresh, monkeypatch):
    def resize(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(video, "resize", resize)
    with pytest.raises(InputError, match=r"No space left.*--capture\.cache-dir"):
        open_074(damaged, fresh)
    assert not [p for p in fresh.cache_dir.rglob("*") if p.is_file()]


def test_cache_folder_that_cannot_be_is_an_error(damaged, fresh):
    fresh.cache_dir.write_text("a file, not a folder")
    with pytest.raises(
        InputError, match=r"cannot be written to .*--capture\.cache-dir"
    ):
        open_074(damaged, fresh)


def test_video_cut_short_names_the_file_and_the_frames(damaged, fresh):
    path = damaged / f"074/sequences/FREE/images/cam_{FRONT}.mp4"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.7)])
    with pytest.raises(
        InputError, match=rf"FREE/images/cam_{FRONT}.*[0-3] of 4 frames"
    ):
        open_074(damaged, fresh)


def test_video_without_index_is_a_problem_of_the_survey(damaged, fresh):
    path = damaged / f"074/sequences/FREE/images/cam_{FRONT}.mp4"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=rf"FREE/images/cam_{FRONT}.* 0 frames"):
        open_074(damaged, fresh)


def test_label_maps_cut_short_are_an_error(damaged, fresh):
    path = damaged / f"074/sequences/FREE/segmentation/cam_{FRONT}.npz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=rf"segmentation/cam_{FRONT}.*damaged"):
        open_074(damaged, fresh)


def test_labels_take_the_pixel_that_half_maps_sample():
    full = np.arange(12 * 8, dtype=np.uint8).reshape(12, 8)
    half = full[::2, ::2]
    np.testing.assert_array_equal(video.resize(full, "labels", 4, 6), half)
    doubled = video.resize(half, "labels", 8, 12)
    np.testing.assert_array_equal(doubled[::2, ::2], half)
    np.testing.assert_array_equal(doubled[1::2, 1::2], half)


def test_other_ratios_average_too():
    ramp = np.repeat(np.arange(0, 240, 2, dtype=np.uint8)[None, :, None], 90, 0)
    ramp = np.repeat(ramp, 3, axis=-1)
    small = video.resize(ramp, "rgb", 50, 40)
    assert small.shape == (40, 50, 3)
    expected = (np.arange(50) + 0.5) * 120 / 50 * 2 - 1
    assert np.abs(small[0, :, 0] - expected).max() < 2


def test_stride_is_applied_to_labels_while_streaming(tmp_path):
    labels = np.arange(7, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 3), np.uint8)
    np.savez_compressed(tmp_path / "maps.npz", labels=labels)
    frames = []
    count = video.decode(tmp_path / "maps.npz", "labels", 3, frames.append)
    assert count.num_frames == 7
    assert [int(f[0, 0]) for f in frames] == [0, 3, 6]


def test_two_copies_of_a_subject_do_not_share_frames(damaged, written, fresh):
    cfg = replace(fresh, ignore_sequences=("FREE",))
    open_074(damaged, cfg)
    open_074(written.root, cfg)
    assert len(list(fresh.cache_dir.iterdir())) == 2


def test_cache_goes_where_the_user_says(tmp_path, monkeypatch):
    def folder(base):
        return video_cache.cache_folder(base, "074", tmp_path, 275, 3)

    monkeypatch.delenv("NPGA_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert folder(None).is_relative_to(tmp_path / "home/.cache/npga_jax")
    monkeypatch.setenv("NPGA_CACHE", str(tmp_path / "env"))
    assert folder(None).is_relative_to(tmp_path / "env")
    assert folder(tmp_path / "flag").is_relative_to(tmp_path / "flag")
    assert folder(None).name == "w275-s3" and folder(None).parent.name[:4] == "074-"


@pytest.fixture
def entry(tmp_path):
    """Four frames of 5x3 pixels in the cache, 0 to 59."""
    frames = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    np.save(tmp_path / "cam.npy", frames)
    return video_cache.Entry(
        source=tmp_path / "cam.mp4",
        kind="alpha",
        array=tmp_path / "cam.npy",
        width=3,
        height=5,
        stride=1,
    )


def test_frames_are_read_from_where_they_are(entry):
    frames = np.load(entry.array)
    for index in (3, 0, 2):
        frame = video_cache.read_frame(entry, index)
        np.testing.assert_array_equal(frame, frames[index])
        assert frame.flags.writeable


@pytest.mark.parametrize("index", [-1, 4])
def test_a_frame_that_is_not_there_is_refused(entry, index):
    with pytest.raises(InputError, match=rf"frame {index} of .*\(it holds 4\)"):
        video_cache.read_frame(entry, index)


def _header(text):
    line = text.ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY\x01\x00",
        _header("{'descr': '|u1', 'fortran_order': True, 'shape': (4, 5, 3)}"),
        _header("{'descr': '<f8', 'fortran_order': False, 'shape': (4, 5, 3)}"),
        _header("{'descr': '|u1', 'fortran_order': False, 'shape': (4, 3, 5)}"),
        _header("{'descr': '|u1', 'fortran_order': False, 'shape': (60,)}"),
        _header("{'descr': '|u1', 'fortran_order': False, 'shape': (4, 5, 3"),
        _header('  {"""'),
    ],
)
def test_a_damaged_array_is_named(entry, content):
    entry.array.write_bytes(content + bytes(60 if content else 0))
    with pytest.raises(InputError, match=r"cam\.npy cannot be read .* decoded anew"):
        video_cache.read_frame(entry, 1)


def test_a_frame_that_was_cut_off_is_refused(entry):
    entry.array.write_bytes(entry.array.read_bytes()[:-1])
    video_cache.read_frame(entry, 2)
    with pytest.raises(InputError, match=r"cam\.npy cannot be read"):
        video_cache.read_frame(entry, 3)
