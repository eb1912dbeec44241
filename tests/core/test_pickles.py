import collections
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.core.pickles import load_restricted

ARRAYS = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
}


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_back(protocol):
    shared = ["again", 1000, 70000, -5, 2**70]
    tree = {"a": shared, "b": shared, 7: (1, 2.5, "ω", None, True), "c": ((), {})}
    back = load_restricted(pickle.dumps(tree, protocol), "x", {})
    assert back == tree and back["a"] is back["b"]


@pytest.mark.parametrize("protocol", [3, 4])
def test_what_is_allowed_comes_back(protocol):
    tree = {"a": [np.arange(6.0).reshape(2, 3)]}
    back = load_restricted(pickle.dumps(tree, protocol), "x", ARRAYS)
    np.testing.assert_array_equal(back["a"][0], tree["a"][0])


class Bomb:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["os.mkdir", "os.system", "eval", "exec", "getattr"])
def test_no_code_is_executed(tmp_path, protocol, kind):
    marker = tmp_path / "executed"
    program = f"__import__('os').mkdir({str(marker)!r})"
    bomb = {
        "os.mkdir": Bomb(os.mkdir, str(marker)),
        "os.system": Bomb(os.system, f"mkdir '{marker}'"),
        "eval": Bomb(eval, program),
        "exec": Bomb(exec, program),
        "getattr": Bomb(getattr, os, "name"),
    }[kind]
    data = (
        pickle.dumps({"a": [bomb]}, protocol)
        if kind != "getattr"
        else (b"cbuiltins\ngetattr\n(N.")
    )
    if kind == "os.mkdir":
        pickle.loads(data)
        assert marker.exists(), "the payload is not live: this would prove nothing"
        marker.rmdir()
    with pytest.raises(InputError, match=rf"^x: .*{kind[-5:]}' *, which is refused"):
        load_restricted(data, "x", ARRAYS)
    assert not marker.exists()


def test_names_within_allowed_ones_and_references_are_refused():
    allowed = {("collections", "OrderedDict"): collections.OrderedDict}
    name = b"\x8c\x0bcollections\x8c" + bytes([21]) + b"OrderedDict.__init__.f"
    for data, message in (
        (b"\x80\x04" + name[:-1] + b"\x93.", "damaged|refused"),
        (b"\x80\x02ccollections\nOrderedDict.fromkeys\n.", "refused"),
        (b"\x80\x02NQ.", "stored elsewhere"),
        (b"Px\n.", "stored elsewhere"),
        (b"\x82\x01.", "not a readable pickle"),
    ):
        with pytest.raises(InputError, match=message):
            load_restricted(data, "x", allowed)


@pytest.mark.parametrize(
    "code",
    [
        *(b"", b"a.", b"t.", b"u.", b"\xff.", b"N", b"h\x05.", b"NNa."),
        b"Nr\xff\xff\xff\x7f.",  # A place in the memo: gigabytes, if it is given one.
        b"Np99999999999\n.",
        b"X" + struct.pack("<I", 2**32 - 1) + b"abc.",
        b"\x8e" + struct.pack("<Q", 2**62) + b".",
        b"\x96" + struct.pack("<Q", 2**62) + b".",
        b"\x95" + struct.pack("<Q", 2**62) + b"N.",
        b"I" + b"1" * 20_000 + b"\n.",
    ],
)
def test_damage_is_a_sentence_and_takes_no_memory(code):
    tracemalloc.start()
    with pytest.raises(InputError, match=r"^x: .*not a readable pickle") as caught:
        load_restricted(b"\x80\x04" + code, "x", {})
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    assert len(str(caught.value)) < 500


def test_cut_short_anywhere_is_refused():
    data = pickle.dumps({"a": [1, 2.5, "x"], "b": np.arange(4.0)}, protocol=4)
    for length in range(len(data)):
        with pytest.raises(InputError):
            load_restricted(data[:length], "x", ARRAYS)


def test_deep_nesting_overflows_nothing():
    data = b"]" * 100_000 + b"a" * 99_999 + b"."
    assert len(load_restricted(data, "x", {})) == 1
