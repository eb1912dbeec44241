import os
import pickle
import random
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.nphm.torch_archive import open_torch_archive
from tests.torch_writer import (
    STORAGES,
    Raw,
    call,
    name,
    opcodes,
    storage,
    tensor,
    write_archive,
)


def read_root(path: Path):
    with open_torch_archive(path) as archive:
        return archive.root


def refused(path: Path, message: str, seconds: float = 5) -> None:
    """Claims that opening the archive fails, in time and in little memory."""
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(InputError, match=message) as caught:
            read_root(path)
        assert time.process_time() - start < seconds
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()
    assert path.name in str(caught.value) and len(str(caught.value)) < 1000


# What torch.save can write.


def test_plain_values_come_back(tmp_path):
    value = {
        "ints": [0, 1, -1, 255, 65536, -(2**31), 2**40, -(2**40)],
        "others": (1.5, None, True, False, "ω", (), [], {}),
        3: {"nested": [({},)]},
    }
    root = read_root(write_archive(tmp_path / "x.pt", value))
    assert root == value and type(root["others"]) is tuple


@pytest.mark.parametrize("dtype", STORAGES)
@pytest.mark.parametrize("order", ["little", "big"])
def test_every_dtype_and_byte_order(tmp_path, dtype, order):
    expected = np.arange(6).astype(dtype)
    data = expected.astype(expected.dtype.newbyteorder(order)).tobytes()
    held = storage("0", 6, STORAGES[dtype])
    path = write_archive(
        tmp_path / "x.pt",
        {
            "turned": tensor(held, 0, (3, 2), (1, 3)),
            "part": tensor(held, 2, (2,), (2,)),
            "one": tensor(held, 5, (), ()),
            "none": tensor(held, 0, (0, 3), (3, 1)),
            "parameter": call(
                "torch._utils._rebuild_parameter",
                tensor(held, 0, (6,), (1,)),
                True,
                call("collections.OrderedDict"),
            ),
        },
        {"0": data},
        byte_order=order.encode(),
    )
    with open_torch_archive(path) as archive:
        found = {key: archive.read(value) for key, value in archive.root.items()}
    turned = expected.reshape(2, 3).T
    np.testing.assert_array_equal(found["turned"], turned, strict=True)
    assert found["turned"].flags.c_contiguous and found["turned"].flags.writeable
    np.testing.assert_array_equal(found["part"], expected[2:5:2], strict=True)
    np.testing.assert_array_equal(found["one"], expected[5])
    assert found["none"].shape == (0, 3)
    np.testing.assert_array_equal(found["parameter"], expected, strict=True)


def test_bfloat16_becomes_float32(tmp_path):
    expected = np.array([1.0, -2.5, 0.0, 3e38], np.float32)
    upper = (expected.view(np.uint32) >> 16).astype("<u2")
    root = {"x": tensor(storage("0", 4, "BFloat16Storage"), 0, (4,), (1,))}
    path = write_archive(tmp_path / "x.pt", root, {"0": upper.tobytes()})
    with open_torch_archive(path) as archive:
        found = archive.read(archive.root["x"])
    np.testing.assert_allclose(found, expected, rtol=2**-7)
    assert found.dtype == np.float32


def test_archives_of_old_torch_have_no_byte_order(tmp_path):
    root = {"x": np.arange(3, dtype=np.float32)}
    path = write_archive(tmp_path / "x.pt", root, byte_order=None)
    with open_torch_archive(path) as archive:
        np.testing.assert_array_equal(archive.read(archive.root["x"]), [0, 1, 2])


def test_attributes_of_a_state_dict_are_passed_over(tmp_path):
    """torch stores versions of the modules as attributes of an OrderedDict."""
    versions = {"_metadata": call("collections.OrderedDict")}
    code = call("collections.OrderedDict").code + opcodes("a") + opcodes(1) + b"s"
    path = write_archive(tmp_path / "x.pt", Raw(code + opcodes(versions) + b"b"))
    assert read_root(path) == {"a": 1}


# What hostile or damaged files can hold.


@pytest.mark.parametrize(
    "dotted",
    [
        *("os.system", "posix.system", "builtins.eval", "__builtin__.exec"),
        *("builtins.getattr", "subprocess.Popen", "torch.load", "torch.FloatTensor"),
        *("numpy.core.multiarray._reconstruct", "torch._utils._rebuild_tensor"),
        *("collections.OrderedDict.__class__", "torch.hub.load", "a." + "x" * 5000),
    ],
)
def test_other_names_are_refused_by_name(tmp_path, dotted):
    path = write_archive(tmp_path / "x.pt", {"a": name(dotted)})
    refused(path, f"asks for '{dotted[:60]}.*refused")


GOOD = storage("0", 6)


@pytest.mark.parametrize(
    "value",
    [
        tensor(GOOD, 1, (6,), (1,)),
        tensor(GOOD, 0, (3, 2), (3, 1)),
        tensor(GOOD, 0, (7,), (0,)),
        tensor(GOOD, 0, (2**30, 2**30), (0, 0)),
        tensor(GOOD, 0, (0, 2**39, 2**39), (0, 0, 0)),
        tensor(GOOD, 2**39, (1,), (1,)),
        tensor(GOOD, 0, (2,), (2**39,)),
        tensor(GOOD, 0, (1,) * 9, (1,) * 9),
        tensor(GOOD, -1, (1,), (1,)),
        tensor(GOOD, 5, (2,), (-1,)),
        tensor(GOOD, 0, (-1,), (1,)),
        tensor(GOOD, 0, (2,), (1, 1)),
        tensor(GOOD, 0, (2.0,), (1,)),
        tensor(GOOD, True, (2,), (1,)),
        tensor(GOOD, 0, (2**70,), (1,)),
        tensor("0", 0, (1,), (1,)),
        tensor(None, 0, (1,), (1,)),
        call("torch._utils._rebuild_tensor_v2", GOOD, 0),
        call("torch.FloatStorage", 1),
        storage("0", -1),
        storage("0", 2.0),
        Raw(opcodes(("storage", GOOD, "0", "cpu", 1)) + b"Q"),
        Raw(b"NQ"),
    ],
)
def test_impossible_tensors_are_refused(tmp_path, value):
    path = write_archive(tmp_path / "x.pt", {"a": value}, {"0": bytes(24)})
    refused(
        path, r"x\.pt: not a readable pickle .*(tensor|storage|int|argument|call|None)"
    )


def test_what_is_set_on_a_state_dict_hides_none_of_its_parts(tmp_path):
    """By BUILD a pickle could put a value in the place of a method."""
    code = call("collections.OrderedDict").code + opcodes("a") + opcodes(1) + b"s"
    code += opcodes({"items": None, "__class__": 1}) + b"b"
    root = read_root(write_archive(tmp_path / "x.pt", Raw(code)))
    assert list(root.items()) == [("a", 1)]


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (storage("1", 6), "lacks its entry 'archive/data/1'"),
        (storage("../data.pkl", 6), "lacks its entry"),
        (storage("0", 7), "has 24 bytes, expected 28"),
        (storage("0", 10**12), "has 24 bytes, expected 4,000,000,000,000"),
        (storage("0", 5), "has 24 bytes, expected at most 20"),
        (storage("0", 6, "DoubleStorage"), "has 24 bytes, expected 48"),
    ],
)
def test_storages_of_another_size_are_refused(tmp_path, held, message):
    root = {"a": tensor(held, 0, (1,), (1,))}
    path = write_archive(tmp_path / "x.pt", root, {"0": bytes(24)})
    with (
        open_torch_archive(path) as archive,
        pytest.raises(InputError, match=message),
    ):
        archive.read(archive.root["a"])


def test_other_files_are_refused(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "legacy").write_bytes(
        pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + bytes(600)
    )
    (tmp_path / "tar").write_bytes(bytes(257) + b"ustar" + bytes(1000))
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("a", "b")
    with zipfile.ZipFile(tmp_path / "two", "w") as archive:
        archive.writestr("a/data.pkl", "N.")
        archive.writestr("b/data.pkl", "N.")
    with zipfile.ZipFile(tmp_path / "large", "w") as archive:
        archive.writestr("a/data.pkl", bytes(17 * 2**20))
    packed = tmp_path / "packed"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(10**6))
    write_archive(tmp_path / "order", {}, byte_order=b"middle")
    for file, message in {
        "empty": "cut short, damaged, or another kind",
        "legacy": "before version 1.6 .* load it with torch.load",
        "tar": "a tar of other files, unpack it",
        "folder": "is a folder",
        "pipe": "not a regular file",
        "absent": "there is no file",
        "zip": "has 0 entries data.pkl",
        "two": "has 2 entries data.pkl",
        "large": "has 17,825,792 bytes",
        "packed": "claim 1,000,000 bytes, expected at most",
        "order": "byte order is b'middle'",
    }.items():
        refused(tmp_path / file, message)


@pytest.mark.parametrize("seed", range(2))
def test_flipped_opcodes_do_no_harm(tmp_path, seed):
    """With a checksum that fits: what an attacker would write, not what a disk does."""
    rng = random.Random(seed)
    code = opcodes({"a": [tensor(GOOD, 0, (2, 3), (3, 1)), (1, 2.5, "x")], 3: {}})
    count = 0
    for _ in range(600):
        broken = bytearray(code)
        for _ in range(rng.choice([1, 2, 5])):
            broken[rng.randrange(len(code))] = rng.randrange(256)
        path = write_archive(tmp_path / "x.pt", Raw(bytes(broken)), {"0": bytes(24)})
        try:
            read_root(path)
        except InputError:
            count += 1
    assert count > 200
