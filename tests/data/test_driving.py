import re
from pathlib import Path

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.data.driving import list_driving_files, load_driving, tracked_folder
from tests.synthetic_capture import write_driving


def write(path: Path, **changes: object) -> Path:
    content = {
        "expr": np.arange(6.0).reshape(3, 2),
        "world_from_head": np.tile(np.eye(4), (3, 1, 1)),
    }
    write_driving(path, **(content | changes))
    return path


def poses(**at: float) -> np.ndarray:
    matrices = np.tile(np.eye(4), (3, 1, 1))
    matrices[1, 0, 0] = at["value"]
    return matrices


def test_codes_are_sorted_by_frame(tmp_path):
    path = write(tmp_path / "a.npz", frame_id=np.array([6, 0, 3]))
    track = load_driving(path)
    assert track.frame_id.tolist() == [0, 3, 6]
    assert track.expr.tolist() == [[2, 3], [4, 5], [0, 1]]
    assert track.expr_names == ("e0", "e1") and track.model == "test"
    assert track.expr.dtype == track.world_from_head.dtype == np.float32


def test_nphm_heads_become_metres(tmp_path):
    pose = np.eye(4)
    pose[:3, :3] *= 0.25  # NPHM's head is 4 times as large as it should be.
    pose[:3, 3] = 1, 2, 3
    path = write(
        tmp_path / "a.npz", head_unit="nphm", world_from_head=np.tile(pose, (3, 1, 1))
    )
    in_metres = load_driving(path).world_from_head[0]
    in_nphm = 4 * np.array([0.01, 0.02, 0.03])
    np.testing.assert_allclose(
        in_metres[:3, :3] @ (in_nphm / 4) + in_metres[:3, 3],
        pose[:3, :3] @ in_nphm + pose[:3, 3],
        atol=1e-6,
    )


def test_names_are_optional(tmp_path):
    path = write(tmp_path / "a.npz", expr_names=None)
    assert load_driving(path).expr_names == ("expr_000", "expr_001")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"world_from_head": poses(value=np.nan)}, "frame 1 has a pose that is not"),
        ({"world_from_head": poses(value=-1)}, "frame 1 is not a rotation"),
        ({"world_from_head": poses(value=1.2)}, "frame 1 is not a rotation"),
        ({"world_from_head": np.eye(4)}, r"expected \[T\]"),
        ({"world_from_head": np.tile(np.eye(4), (2, 1, 1))}, r"expected \[T\]"),
        ({"expr": np.full((3, 2), np.inf)}, "frame 0 has an expression code"),
        ({"expr": np.zeros((3, 0))}, r"expected \[T\]"),
        ({"frame_id": np.array([0, 1, 1])}, "must not repeat"),
        ({"frame_id": np.array([0.0, 1.0, 2.0])}, "integers"),
        ({"expr_names": np.array(["a"])}, "1 expr_names"),
        ({"head_unit": "cm"}, "head_unit is 'cm'"),
        ({"model": None}, "lacks model"),
        ({"frame_id": np.array([0, 1, None])}, "'frame_id' cannot be used"),
    ],
)
def test_what_cannot_be_is_an_error(tmp_path, changes, message):
    path = write(tmp_path / "a.npz", **changes)
    with pytest.raises(InputError, match=message) as error:
        load_driving(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.98])
def test_damaged_file_is_an_error(tmp_path, keep):
    path = write(tmp_path / "a.npz")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep if keep < 1 else keep)])
    with pytest.raises(InputError, match=r"a\.npz.* cannot be read"):
        load_driving(path)


def test_flipped_bytes_are_an_error(tmp_path):
    path = write(tmp_path / "a.npz")
    data = bytearray(path.read_bytes())
    at = data.index(b"NUMPY") + 140
    data[at : at + 8] = b"\xff" * 8
    path.write_bytes(bytes(data))
    with pytest.raises(InputError):
        load_driving(path)


def test_codes_that_claim_more_than_any_sequence_are_not_unpacked(
    tmp_path, monkeypatch
):
    path = write(tmp_path / "a.npz")
    load_driving(path)
    monkeypatch.setattr("npga_jax.data.driving._MAX_BYTES", 1000)
    with pytest.raises(InputError, match=r"a\.npz: its entries claim .* at most 1,000"):
        load_driving(path)


def test_lone_npy_is_an_error(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    path = (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(InputError, match="cannot be read"):
        load_driving(path)


def test_capture_comes_before_the_cache(tmp_path):
    folder, cache = tmp_path / "074", tmp_path / "cache"
    tracked = tracked_folder(folder, cache)
    in_cache = write(tracked / "FREE/tracking/nphm.npz")
    assert list_driving_files(folder, "FREE", cache) == {"nphm": in_cache}
    flame = write(folder / "sequences/FREE/tracking/flame.npz")
    files = {"flame": flame, "nphm": in_cache}
    assert list_driving_files(folder, "FREE", cache) == files
    own = write(folder / "sequences/FREE/tracking/nphm.npz")
    files = {"flame": flame, "nphm": own}
    assert list_driving_files(folder, "FREE", cache) == files
    assert list_driving_files(folder, "FREE", tmp_path / "other") == files
    assert list_driving_files(folder, "EXP-2-eyes", cache) == {}


def test_tracked_codes_have_a_folder_for_every_copy_of_a_capture(tmp_path, monkeypatch):
    first = tracked_folder(tmp_path / "a/074", tmp_path)
    assert re.fullmatch("074-[0-9a-f]{8}", first.name)
    assert first.parent == tmp_path / "tracking"
    assert tracked_folder(tmp_path / "b/074", tmp_path) != first
    (tmp_path / "a/074").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a/074")
    assert tracked_folder(tmp_path / "link", tmp_path) == first
    assert tracked_folder(tmp_path / "a/../a/074", tmp_path) == first
    monkeypatch.setenv("NPGA_CACHE", str(tmp_path / "env"))
    assert tracked_folder(tmp_path / "link").parent == tmp_path / "env/tracking"
