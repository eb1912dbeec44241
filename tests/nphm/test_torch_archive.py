import os
import pickle
import random
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.nphm.torch_archive import MAX_OPCODES, open_torch_archive
from tests.torch_writer import (
    STORAGES,
    Raw,
    call,
    name,
    opcodes,
    storage,
    tensor,
    write_archive,
    write_code,
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
    # The same as the interpreter that is meant for it makes of it.
    assert pickle.loads(b"\x80\x02" + opcodes(value) + b".") == value


def test_pickles_of_python_itself_are_understood(tmp_path):
    """Its pickler uses the memo and short opcodes, which the writer here does not."""
    shared = ["again", 1000, 70000, -5, 2**70]
    value = {"a": shared, "b": shared, 7: (1, 2), 8: (1, 2, 3), 9: (1,), "again": 1.5}
    value |= {f"key {i}": "again" for i in range(400)}
    path = write_archive(tmp_path / "x.pt", Raw(pickle.dumps(value, protocol=2)[2:-1]))
    root = read_root(path)
    assert root == value and root["a"] is root["b"]


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


CYCLES = {
    "list": b"]q\x00h\x00a",
    "dict": b"}q\x00" + opcodes("a") + b"h\x00s",
    "tuple in a list": b"]q\x00h\x00\x85a",
    "deep": b"]q\x00" + b"]" * 1000 + b"h\x00a" + b"a" * 1000,
}


@pytest.mark.parametrize("kind", CYCLES)
def test_cycles_are_refused(tmp_path, kind):
    pickle.loads(b"\x80\x02" + CYCLES[kind] + b".")  # It is a cycle, not a mistake.
    refused(write_archive(tmp_path / "x.pt", {"a": Raw(CYCLES[kind])}), "itself")


def test_what_is_shared_without_a_cycle_is_not_refused(tmp_path):
    """A pair of twice the same pair, 60 times over: 2**60 pairs if written out."""
    code = b"]" + b"q\x00h\x00\x86" * 60
    value = read_root(write_archive(tmp_path / "x.pt", Raw(code)))
    for _ in range(60):
        assert len(value) == 2 and value[0] is value[1]
        value = value[0]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        # Nested pairs as a key: 2**60 steps to hash it.
        (b"})" + b"q\x00h\x00\x86" * 60 + b"Ns", "tuple as key"),
        (b"}" + opcodes(1.5) + b"Ns", "float as key"),
        (b"}" + b"NNs", "NoneType as key"),
        (b"}(K\x01u", "key without a value"),
        (b"]" * 100_000 + b"a" * 99_999 + b"K\x01R", "calls what is no function"),
        (b"]" + b"Na" * (MAX_OPCODES // 2), "more than"),
        (b"]" * (MAX_OPCODES + 1), "more than"),
        (b"\x8b" + struct.pack("<i", 2**31 - 1), "LONG4 is refused"),
        (b"X" + struct.pack("<I", 2**32 - 1) + b"abc", "damaged or not"),
        (b"\x8e" + struct.pack("<Q", 2**62), "BINBYTES8 is refused"),
        (b"\x96" + struct.pack("<Q", 2**62), "BYTEARRAY8 is refused"),
        (b"\x95" + struct.pack("<Q", 2**62) + b"N", "FRAME is refused"),
        (b"Nr\xff\xff\xff\x7fh\x05", "recalls what it has not kept"),
        (b"j\xff\xff\xff\x7f", "recalls what it has not kept"),
        (b"N2", "DUP is refused"),
        (b"N0", "POP is refused"),
        (b"S'\\o'\n", "STRING is refused"),
        (b"(ccollections\nOrderedDict\nX\x01\x00\x00\x00ao", "OBJ is refused"),
        (b"(X\x01\x00\x00\x00aios\nsystem\n", "INST is refused"),
        (b"ccollections\nOrderedDict\n)\x81", "NEWOBJ is refused"),
        (b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93", "STACK_GLOBAL is refused"),
        (b"Pos.system\n", "PERSID is refused"),
        (b"\x82\x01", "EXT1 is refused"),
        (b"I" + b"1" * 20_000 + b"\n", "INT is refused"),
        (b"L" + b"1" * 20_000 + b"L\n", "LONG is refused"),
        (b"ctorch\nFloatStorage\n)R", "calls torch.FloatStorage in an unknown way"),
        (b"N)R", "calls what is no function"),
        (b"ccollections\nOrderedDict\n]R", "calls what is no function"),
        (opcodes(call("collections.OrderedDict", [("a", 1)])), "OrderedDict in an"),
        (b"ctorch\nSize\n" + opcodes(((-1,),)) + b"R", "torch.Size in an unknown"),
        (b"ctorch._utils\n_rebuild_parameter\n" + opcodes((1, 2, 3)) + b"R", "unknown"),
        (b"ccollections\nOrderedDict\n" + opcodes({"__class__": 1}) + b"b", "BUILD on"),
        (b"NNa", "APPEND on a NoneType"),
        (b"K\x01K\x01K\x01s", "SETITEM on a int"),
        (b"NQ", "storage in an unknown way"),
        (b"a", "damaged or not"),
        (b"t", "damaged or not"),
        (b"u", "damaged or not"),
        (b"", "damaged or not"),
        (b"NN", "end comes too early"),
        (b"(N", "end comes too early"),
        (b"\xff", "b'.xff' is no opcode"),
        (b"c\xff\xff\n\xff\n", "damaged or not"),
        (b"ccollections\\x2eabc\nOrderedDict\n", "refused"),
    ],
)
def test_abuse_of_opcodes_is_refused(tmp_path, code, message):
    refused(write_archive(tmp_path / "x.pt", Raw(code)), message)


def test_deep_nesting_overflows_nothing(tmp_path):
    code = b"]" * 100_000 + b"a" * 99_999
    assert len(read_root(write_archive(tmp_path / "x.pt", Raw(code)))) == 1


GOOD = storage("0", 6)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tensor(GOOD, 1, (6,), (1,)), "not lie within its storage"),
        (tensor(GOOD, 0, (3, 2), (3, 1)), "not lie within its storage"),
        (tensor(GOOD, 0, (7,), (0,)), "not lie within its storage"),
        (tensor(GOOD, 0, (2**40, 2**40), (0, 0)), "not lie within its storage"),
        (tensor(GOOD, 2**62, (1,), (1,)), "not lie within its storage"),
        (tensor(GOOD, 0, (2,), (2**62,)), "not lie within its storage"),
        (tensor(GOOD, -1, (1,), (1,)), "tensor in an unknown way"),
        (tensor(GOOD, 5, (2,), (-1,)), "tensor in an unknown way"),
        (tensor(GOOD, 0, (-1,), (1,)), "tensor in an unknown way"),
        (tensor(GOOD, 0, (2,), (1, 1)), "tensor in an unknown way"),
        (tensor(GOOD, 0, (2.0,), (1,)), "tensor in an unknown way"),
        (tensor(GOOD, True, (2,), (1,)), "tensor in an unknown way"),
        (tensor(GOOD, 0, [2], [1]), "tensor in an unknown way"),
        (tensor(GOOD, 0, (2**70,), (1,)), "tensor in an unknown way"),
        (tensor(GOOD, 0, (1,) * 9, (1,) * 9), "tensor in an unknown way"),
        (tensor("0", 0, (1,), (1,)), "tensor in an unknown way"),
        (call("torch._utils._rebuild_tensor_v2", GOOD, 0), "_rebuild_tensor_v2 in an"),
        (storage("0", -1), "storage in an unknown way"),
        (storage("0", 2.0), "storage in an unknown way"),
        (storage(0, 1), "storage in an unknown way"),
        (storage("0", 1, "QInt8Storage"), "asks for 'torch.QInt8Storage'"),
        (Raw(opcodes(("storage", GOOD, "0", "cpu", 1)) + b"Q"), "storage in an"),
    ],
)
def test_impossible_tensors_are_refused(tmp_path, value, message):
    path = write_archive(tmp_path / "x.pt", {"a": value}, {"0": bytes(24)})
    refused(path, message)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (storage("1", 6), "lacks its entry 'archive/data/1'"),
        (storage("../data.pkl", 6), "lacks its entry"),
        (storage("0", 7), "has 24 bytes, expected 28"),
        (storage("0", 10**12), "has 24 bytes, expected 4,000,000,000,000"),
        (storage("0", 5), "claims 24 bytes, expected at most 20"),
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
        "legacy": "before version 1.6",
        "tar": "tar that holds other files",
        "folder": "is a folder",
        "pipe": "not a regular file",
        "absent": "there is no file",
        "zip": "has 0 entries data.pkl",
        "two": "has 2 entries data.pkl",
        "large": "claims 17,825,792 bytes",
        "packed": "is compressed",
        "order": "byte order is b'middle'",
    }.items():
        refused(tmp_path / file, message)


def test_pickle_cut_short_anywhere_is_refused(tmp_path):
    path = tmp_path / "x.pt"
    code = opcodes({"a": [tensor(GOOD, 0, (2, 3), (3, 1)), (1, 2.5, "x")]}) + b"."
    for length in range(len(code)):
        refused(write_code(path, code[:length]), "damaged or not")
    assert read_root(write_code(path, code))["a"][1] == (1, 2.5, "x")


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
