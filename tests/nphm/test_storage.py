import dataclasses
import io
import json
import random
import time
import tracemalloc
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.nphm import storage
from npga_jax.nphm.model import HeadModel
from npga_jax.nphm.storage import load_head_model, save_head_model
from npga_jax.tracking.files import model_name
from npga_jax.tracking.head_prior import open_prior
from tests.small_head_model import CONFIG, CONFIGS, is_same, make_model

METADATA = {"source": "a test", "épocha": [1, 2.5, None, {"x": "ω"}]}
ANCHORS = "params/anchors_mean"
WEIGHT = "params/identity/geo/0/w"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "prior.npz"
    save_head_model(path, make_model(), METADATA)
    return path


def rewrite(path: Path, **changes: np.ndarray | bytes | None) -> None:
    """Changes entries of an .npz: arrays, the raw bytes of an .npy, None to drop."""
    with np.load(path) as archive:
        entries = {name: archive[name] for name in archive.files} | changes
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in entries.items():
            if isinstance(value, np.ndarray):
                file = io.BytesIO()
                np.save(file, value, allow_pickle=True)
                value = file.getvalue()
            if value is not None:
                archive.writestr(f"{name}.npy", value)


def config_json(**changes) -> np.ndarray:
    return np.asarray(json.dumps(dataclasses.asdict(CONFIG) | changes))


@pytest.mark.parametrize("name", CONFIGS)
def test_model_comes_back_exactly(tmp_path, name):
    path = tmp_path / "prior.npz"
    model = make_model(CONFIGS[name])
    save_head_model(path, model, METADATA)
    loaded, metadata = load_head_model(path)
    assert is_same(loaded, model)
    assert metadata == METADATA
    assert jax.tree.structure(loaded.params) == jax.tree.structure(model.params)
    leaves = jax.tree.leaves(loaded.params)
    assert all(type(x) is np.ndarray and x.dtype == np.float32 for x in leaves)
    assert [p.name for p in tmp_path.iterdir()] == ["prior.npz"]


def test_half_precision_takes_half_the_space_and_keeps_anchors_exact(tmp_path):
    cfg = dataclasses.replace(CONFIG, hidden_dim_geo=150)
    model, paths = make_model(cfg), [tmp_path / "4.npz", tmp_path / "2.npz"]
    for path, dtype in zip(paths, (np.float32, "float16"), strict=True):
        save_head_model(path, model, {}, dtype=dtype)
    whole, half = (path.stat().st_size for path in paths)
    assert half < 0.6 * whole
    loaded, _ = load_head_model(paths[1])
    for a, b in zip(
        jax.tree.leaves(model.params), jax.tree.leaves(loaded.params), strict=True
    ):
        assert b.dtype == np.float32
        np.testing.assert_allclose(b, a, rtol=2**-11, atol=2**-24)
    np.testing.assert_array_equal(
        loaded.params["anchors_mean"], model.params["anchors_mean"]
    )


def test_numpy_reads_the_file_without_pickle(saved):
    """Others can use the weights without this package."""
    model = make_model()
    with np.load(saved, allow_pickle=False) as archive:
        assert archive["format_version"] == 2
        assert json.loads(str(archive["config"])) == dataclasses.asdict(CONFIG)
        np.testing.assert_array_equal(
            archive[WEIGHT], model.params["identity"]["geo"][0]["w"]
        )


def replaced(model: HeadModel, value) -> HeadModel:
    params = dict(model.params)
    params["anchors_mean"] = value
    return model._replace(params=params)


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (np.full((5, 3), np.nan, np.float32), "f4", "anchors_mean holds NaN"),
        (np.zeros((4, 3), np.float32), "f4", r"anchors_mean has shape \(4, 3\)"),
        (None, "f4", "lacks params/anchors_mean"),
        (np.zeros((5, 3)), "f8", "not float64"),
    ],
)
def test_bad_models_are_not_saved_and_the_old_file_stays(saved, value, dtype, message):
    before = saved.read_bytes()
    with pytest.raises(InputError, match=message):
        save_head_model(saved, replaced(make_model(), value), {}, dtype=dtype)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_weights_too_large_for_half_precision_are_not_saved(tmp_path):
    model = make_model()
    model.params["identity"]["geo"][0]["w"][0, 0, 0] = 1e5
    with pytest.raises(InputError, match=r"identity/geo/0/w .*too large for float16"):
        save_head_model(tmp_path / "x.npz", model, {}, dtype=np.float16)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "metadata",
    [
        {"x": float("nan")},
        {"x": float("inf")},
        {1: 2},
        {"x": (1, 2)},
        {"x": Path()},
        [1],
        None,
    ],
)
def test_metadata_that_would_not_come_back_is_refused(tmp_path, metadata):
    with pytest.raises(InputError, match="metadata cannot be stored"):
        save_head_model(tmp_path / "x.npz", make_model(), metadata)


def test_interrupted_writing_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.np, "savez", full)
    with pytest.raises(InputError, match="No space left"):
        save_head_model(saved, make_model(seed=1), {})
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("name", ["file/x.npz", "x.npy", "x"])
def test_bad_places_are_named(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written|does not end in \.npz"):
        save_head_model(tmp_path / name, make_model(), {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_anchors": 0}, "num_anchors is 0, expected .* from 1"),
        ({"num_anchors": 5.0}, "num_anchors is 5.0"),
        ({"num_anchors": True}, "num_anchors is True"),
        ({"num_layers_geo": 10**9}, "num_layers_geo is 1000000000"),
        ({"hidden_dim_exp": 10**9}, "hidden_dim_exp is 1000000000"),
        ({"hidden_dim_geo": -1}, "hidden_dim_geo is -1"),
        ({"lat_dim_exp": None}, "lat_dim_exp is None"),
        ({"blend_std": 0}, "blend_std is 0"),
        ({"blend_std": "4"}, "blend_std is '4'"),
        ({"num_neighbors": 6}, "num_neighbors is 6 with 5 anchors"),
        ({"num_symm_pairs": 3}, "num_symm_pairs is 3 with 5 anchors"),
        ({"hidden_dim_geo": 16384, "hidden_dim_exp": 16384}, "make .* parameters"),
        ({"num_eyes": 2}, "unknown 'num_eyes'"),
    ],
)
def test_sizes_that_cannot_be_are_refused_before_anything_is_made(
    saved, changes, message
):
    rewrite(saved, config=config_json(**changes))
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(InputError, match=message):
        load_head_model(saved)
    assert time.process_time() - start < 5
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_missing_setting_is_named(saved):
    values = dataclasses.asdict(CONFIG)
    del values["lat_dim_id"]
    rewrite(saved, config=np.asarray(json.dumps(values)))
    with pytest.raises(InputError, match="config lacks lat_dim_id"):
        load_head_model(saved)


def test_files_of_version_1_are_read_but_for_the_variant_that_went(saved):
    old = {"mode": "local", "lat_dim_geo_global": 512, "lat_dim_app_global": 512}
    rewrite(saved, format_version=np.asarray(1), config=config_json(**old))
    assert is_same(load_head_model(saved)[0], make_model())
    old["mode"] = "global"
    rewrite(saved, config=config_json(**old))
    with pytest.raises(InputError, match=r"prior\.npz .*one network .*not supported"):
        load_head_model(saved)


def test_the_packaged_model_is_the_one_that_was_trained():
    """To the bit: codes that were tracked with it carry its fingerprint."""
    packaged = open_prior(None)
    assert model_name(packaged) == "nphm default 1dcee4a3"
    assert packaged.model.cfg.num_anchors == 65 and not packaged.model.cfg.has_color
    assert len(packaged.geo_std) == 560


FINE = np.zeros((5, 3), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({WEIGHT: None}, f"lacks {WEIGHT}"),
        ({"params/extra": FINE}, "unknown 'params/extra'"),
        ({"extra\x1b[2J": FINE}, r"unknown 'extra\\x1b"),
        ({"config": None, "metadata": None}, "lacks config, metadata"),
        ({"format_version": np.asarray(3)}, "format version 3"),
        ({"format_version": np.asarray("x")}, "format version x"),
        ({"format_version": np.asarray([1])}, r"format version \[1\]"),
        ({ANCHORS: FINE[:4]}, r"anchors_mean .* shape \(4, 3\) .*expected \(5, 3\)"),
        ({ANCHORS: FINE.T.copy()}, r"shape \(3, 5\)"),
        ({ANCHORS: FINE.astype("f8")}, "dtype float64, expected .* float32"),
        ({ANCHORS: FINE.astype("i4")}, "dtype int32"),
        ({ANCHORS: np.full((5, 3), "x")}, "dtype <U1"),
        ({ANCHORS: FINE + np.float32("nan")}, "NaN"),
        ({ANCHORS: FINE - np.float32("inf")}, "NaN or values too large"),
        ({ANCHORS: np.zeros((5, 3), [("a", "f4")])}, r"dtype \[\('a'"),
        ({ANCHORS: b"hello"}, "anchors_mean' cannot be used .*plain numbers or text"),
        ({"metadata": np.asarray("[1]")}, "metadata cannot .*a list in place"),
        ({"metadata": np.asarray("{")}, "metadata cannot"),
        ({"metadata": np.asarray('{"x": NaN}')}, "metadata cannot"),
        ({"metadata": np.asarray('{"x": 1e999}')}, "metadata cannot"),
        ({"metadata": np.asarray('{"x": ' + "1" * 9999 + "}")}, "metadata cannot"),
        ({"metadata": np.asarray("[" * 100_000)}, "metadata cannot"),
        ({"metadata": np.asarray(["{}", "{}"])}, r"shape \(2,\)"),
        ({"metadata": np.asarray(b"{}")}, "metadata cannot"),
        ({"metadata": np.full((), 2**32 - 1, "<u4").view("<U1")}, "metadata cannot"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(saved, changes, message):
    rewrite(saved, **changes)
    with pytest.raises(InputError, match=message) as caught:
        load_head_model(saved)
    assert "prior.npz" in str(caught.value)


@pytest.mark.parametrize("name", [ANCHORS, "config", "format_version", "extra"])
def test_python_objects_are_not_made(saved, name):
    rewrite(saved, **{name: np.asarray([None])})
    with pytest.raises(InputError, match=r"plain numbers or text"):
        load_head_model(saved)


def test_another_npz_is_refused(saved):
    np.savez(saved, a=FINE)
    with pytest.raises(InputError, match="it lacks format_version"):
        load_head_model(saved)


def test_packed_zeros_are_refused_without_unpacking(saved):
    """A hundred megabytes of zeros fit into 100 kB."""
    with np.load(saved) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays[ANCHORS] = np.zeros(25_000_000, np.float32)
    np.savez_compressed(saved, **arrays)
    tracemalloc.start()
    with pytest.raises(InputError, match="claim 100,"):
        load_head_model(saved)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_file_cut_short_anywhere_is_refused(saved):
    data = saved.read_bytes()
    for length in range(0, len(data), max(1, len(data) // 150)):
        saved.write_bytes(data[:length])
        with pytest.raises(InputError):
            load_head_model(saved)


@pytest.mark.parametrize("seed", range(2))
def test_flipped_bytes_are_noticed_or_do_not_matter(saved, seed):
    """Dates and such in a zip are not covered by a checksum, and change nothing."""
    rng = random.Random(seed)
    data, model, refused = saved.read_bytes(), make_model(), 0
    directory = data.index(b"PK\x01\x02")
    for _ in range(90):
        start = rng.choice([0, directory])
        broken = bytearray(data)
        for _ in range(rng.choice([1, 1, 4])):
            broken[rng.randrange(start, len(data))] = rng.randrange(256)
        saved.write_bytes(broken)
        try:
            loaded, metadata = load_head_model(saved)
        except InputError:
            refused += 1
        else:
            assert is_same(loaded, model) and metadata == METADATA
    assert refused > 40
