import dataclasses
import os
import pickle
import random
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import yaml

from npga_jax.core.errors import InputError
from npga_jax.nphm.model import HeadModel
from npga_jax.nphm.mononphm import load_mononphm
from npga_jax.nphm.official import official_from_params
from tests.small_head_model import CONFIG, CONFIGS, is_same, make_model
from tests.torch_writer import Raw, write_archive


def official_yaml(cfg=CONFIG) -> dict:
    """Settings in the layout of MonoNPHM's configs.yaml."""
    return {
        "decoder": {
            "decoder_nloc": cfg.num_anchors,
            "ex": {
                "mode": "compress",
                "hidden_dim": cfg.hidden_dim_exp,
                "nlayers": cfg.num_layers_exp,
                "lat_dim_ex": cfg.lat_dim_exp,
                "lat_dim_id": cfg.lat_dim_id,
                "nhyper": cfg.num_hyper,
            },
            "id": {
                "nloc": cfg.num_anchors,
                "nsymm_pairs": cfg.num_symm_pairs,
                "nneigh": cfg.num_neighbors,
                "blend_std": cfg.blend_std,
                "lat_dim_glob": cfg.lat_dim_glob,
                "lat_dim_loc_geo": cfg.lat_dim_loc_geo,
                "lat_dim_loc_app": cfg.lat_dim_loc_app,
                "gnn": {
                    "hidden_dim_geo": cfg.hidden_dim_geo,
                    "nlayers_geo": cfg.num_layers_geo,
                    "hidden_dim_app": cfg.hidden_dim_app,
                    "nlayers_app": cfg.num_layers_app,
                },
            },
        },
    }


# The two widths that configs.yaml does not tell are those of the official classes.
OFFICIAL = dataclasses.replace(CONFIG, hidden_dim_pos=64, bottleneck_dim=16)


def checkpoint_root(model: HeadModel, epoch: int = 7) -> dict:
    cfg, rng = model.cfg, np.random.default_rng(1)
    table = lambda n, d: rng.standard_normal((n, d)).astype(np.float32)  # noqa: E731
    moments = {"step": np.asarray(3.0, np.float32), "exp_avg": table(2, 3)}
    group = {"lr": 5e-4, "betas": (0.9, 0.999), "fused": None, "params": [0, 1]}
    return {
        "epoch": epoch,
        **{k: OrderedDict(v) for k, v in official_from_params(*model[::-1]).items()},
        "optimizer": {"state": {0: moments}, "param_groups": [group]},
        "latent_codes": {
            "codebook.geo.embedding.weight": table(2, cfg.lat_dim_geo),
            "codebook.exp.embedding.weight": table(3, cfg.lat_dim_exp),
            "codebook.app.embedding.weight": table(2, cfg.lat_dim_app),
        },
        "optimizer_lat": ({"state": {}, "param_groups": []},),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An experiment's folder as MonoNPHM's training leaves it, and the anchors."""
    root = tmp_path / "experiment"
    (root / "checkpoints").mkdir(parents=True)
    model = make_model(OFFICIAL)
    for epoch in (9, 10):
        write_archive(
            root / "checkpoints" / f"checkpoint_epoch_{epoch}.tar",
            checkpoint_root(model, epoch),
        )
    (root / "configs.yaml").write_text(yaml.dump(official_yaml()))
    np.save(root / "anchors_5.npy", model.params["anchors_mean"].astype(np.float64))
    return root


def newest(folder: Path) -> Path:
    return folder / "checkpoints" / "checkpoint_epoch_10.tar"


# Folders, settings and anchors.


def test_newest_checkpoint_of_a_folder_is_taken(folder):
    official = load_mononphm(folder)
    assert official.epoch == 10 and official.path == newest(folder)
    assert load_mononphm(folder / "checkpoints").epoch == 10
    assert is_same(official.model, make_model(OFFICIAL))
    assert {k: v.shape for k, v in official.codebooks.items()} == {
        "geo": (2, 15),
        "exp": (3, 4),
        "app": (2, 15),
    }


def test_relative_paths_find_what_lies_a_folder_above(folder, monkeypatch):
    monkeypatch.chdir(folder / "checkpoints")
    assert load_mononphm(Path("checkpoint_epoch_9.tar")).epoch == 9
    assert load_mononphm(Path(".")).epoch == 10


@pytest.mark.parametrize("variant", ["without colour", "without hyper"])
def test_variants_load(folder, variant):
    cfg = dataclasses.replace(
        CONFIGS[variant], blend_std=4.0, hidden_dim_pos=64, bottleneck_dim=16
    )
    model = make_model(cfg)
    root = checkpoint_root(model)
    if not cfg.has_color:
        del root["latent_codes"]["codebook.app.embedding.weight"]
    write_archive(newest(folder), root)
    (folder / "configs.yaml").write_text(yaml.dump(official_yaml(cfg)))
    official = load_mononphm(folder)
    assert is_same(official.model, model)
    assert ("app" in official.codebooks) == cfg.has_color


def test_checkpoint_without_codebooks_loads(folder):
    root = checkpoint_root(make_model(OFFICIAL))
    del root["latent_codes"]
    write_archive(newest(folder), root)
    assert load_mononphm(folder).codebooks is None


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("absent", "there is no .*absent"),
        ("empty", "holds no checkpoint_epoch_"),
    ],
)
def test_wrong_places_are_named(tmp_path, place, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        load_mononphm(tmp_path / place)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no configs.yaml beside .* or one folder above"),
        ("", "configs.yaml: the configuration cannot be read"),
        ("decoder: 3", "configs.yaml: the configuration cannot be read"),
        ("decoder: {}", "has no entry 'id'"),
        ("a: [", "configs.yaml cannot be read"),
        ("\0", "configs.yaml cannot be read"),
        ("a: &x [1]\nb: [*x, *x]", "aliases or tags"),
        ("a: !!python/object/apply:os.mkdir [executed]", "aliases or tags"),
        (
            lambda text: text.replace("nneigh: 3", "nneigh: 0x" + "f" * 20_000),
            "configs.yaml: .*limit",
        ),
        ("[" * 20_000, "nested more than"),
        ("x" * 200_000, "larger than"),
        ({"nneigh": 6}, "num_neighbors is 6 with 5 anchors"),
        ({"blend_std": float("inf")}, "blend_std is inf"),
        ({"nsymm_pairs": float("inf")}, "configs.yaml: "),
        ({"lat_dim_glob": 10**9}, "lat_dim_glob is 1000000000"),
        ({"lat_dim_glob": 4}, "mlp_pos.0.weight has shape .* expected"),
    ],
)
def test_settings_that_cannot_be_used_are_named(folder, monkeypatch, text, message):
    monkeypatch.chdir(folder)
    path = folder / "configs.yaml"
    if text is None:
        path.unlink()
    elif isinstance(text, dict):
        settings = official_yaml()
        settings["decoder"]["id"] |= text
        path.write_text(yaml.dump(settings))
    elif callable(text):
        path.write_text(text(path.read_text()))
    else:
        path.write_text(text)
    start = time.process_time()
    with pytest.raises(InputError, match=message):
        load_mononphm(folder)
    assert time.process_time() - start < 5
    assert not (folder / "executed").exists()


def test_explicit_settings_must_exist(folder):
    with pytest.raises(InputError, match=r"there is no file .*elsewhere\.yaml"):
        load_mononphm(folder, config=folder / "elsewhere.yaml")
    with pytest.raises(InputError, match=r"there is no file .*elsewhere\.npy"):
        load_mononphm(folder, anchors=folder / "elsewhere.npy")


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        (np.zeros((4, 3)), r"shape \(4, 3\) .* expected .*\(5, 3\)"),
        (np.zeros((5, 3), np.int64), "dtype int64"),
        (np.full((5, 3), np.nan), "NaN"),
        (np.asarray([None] * 15).reshape(5, 3), "plain numbers or text"),
        (np.zeros(10**6), "larger than"),
    ],
)
def test_anchors_that_cannot_be_used_are_named(folder, anchors, message):
    np.save(folder / "anchors_5.npy", anchors, allow_pickle=True)
    with pytest.raises(InputError, match=rf"anchors_5\.npy .*{message}"):
        load_mononphm(folder)


def put(part: str, key: str, value):
    def change(root: dict) -> None:
        root[part][key] = value(root[part][key]) if callable(value) else value

    return change


BIAS = "defDeepSDF.lin0.bias"
GEO = "codebook.geo.embedding.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["ex_decoder"].pop(BIAS), f"ex_decoder.{BIAS} is missing"),
        (put("id_decoder", "x.y", lambda _: 0), None),
        (put("ex_decoder", BIAS, lambda v: v[:-1].copy()), "lin0.bias has shape"),
        (put("ex_decoder", BIAS, lambda v: v.astype("i4")), "dtype int32, expected"),
        (put("ex_decoder", BIAS, lambda v: v * np.float32("nan")), "NaN or infinite"),
        (put("ex_decoder", BIAS, lambda v: v + np.float32("inf")), "NaN or infinite"),
        (put("ex_decoder", BIAS, "text"), "lin0.bias is no tensor"),
        (put("ex_decoder", BIAS, [1.0]), "lin0.bias is no tensor"),
        (lambda r: r["ex_decoder"].update({3: 4}), "key that is no name"),
        (lambda r: r["ex_decoder"].update({"\x1b[2J": 4}), "key that is no name"),
        (lambda r: r.pop("id_decoder"), "no state dict id_decoder"),
        (lambda r: r.update(ex_decoder=[1]), "no state dict ex_decoder"),
        (lambda r: r.pop("epoch"), "epoch is no whole number"),
        (lambda r: r.update(epoch=-1), "epoch is no whole number"),
        (lambda r: r.update(epoch=True), "epoch is no whole number"),
        (lambda r: r["latent_codes"].pop(GEO), f"latent_codes lacks {GEO}"),
        (put("latent_codes", GEO, lambda v: v[:, 1:].copy()), r"expected \(n, 15\)"),
        (put("latent_codes", GEO, lambda v: v[0].copy()), r"expected \(n, 15\)"),
        (put("latent_codes", GEO, lambda v: v * np.float32("nan")), "NaN or infinite"),
        (lambda r: r.update(latent_codes=[]), "no state dict latent_codes"),
    ],
)
def test_wrong_weights_are_named(folder, change, message):
    root = checkpoint_root(make_model(OFFICIAL))
    if message is None:
        root["id_decoder"]["x.y"] = np.zeros(1, np.float32)
        message = "id_decoder.x.y is unknown"
    else:
        change(root)
    write_archive(newest(folder), root)
    with pytest.raises(InputError, match=message) as caught:
        load_mononphm(folder)
    assert "checkpoint_epoch_10.tar" in str(caught.value)


def test_root_must_be_a_dict(folder):
    write_archive(newest(folder), [1, 2])
    with pytest.raises(InputError, match="holds no dict"):
        load_mononphm(folder)


# What hostile or damaged files can hold.


class Bomb:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("is_nested", [False, True])
def test_no_code_is_executed(folder, is_nested):
    """More ways to try are in the tests of the unpickler."""
    marker = folder / "executed"
    code = pickle.dumps(Bomb(os.mkdir, str(marker)), 2)
    pickle.loads(code)
    assert marker.exists(), "the payload is not live: this would prove nothing"
    marker.rmdir()
    body = Raw(code[2:-1])
    root = checkpoint_root(make_model(OFFICIAL))
    if is_nested:
        root["optimizer"]["state"][0]["exp_avg"] = body
    write_archive(newest(folder), root if is_nested else body)
    with pytest.raises(InputError, match="refused"):
        load_mononphm(folder)
    assert not marker.exists()


def outcome(folder: Path) -> HeadModel | None:
    """The model, or None where it is refused in the way that a user can read."""
    try:
        return load_mononphm(folder).model
    except InputError:
        return None


def test_checkpoint_cut_short_anywhere_is_refused(folder):
    path = newest(folder)
    data = path.read_bytes()
    for length in range(0, len(data), len(data) // 100):
        path.write_bytes(data[:length])
        assert outcome(folder) is None, length


@pytest.mark.parametrize("seed", range(2))
def test_flipped_bytes_of_a_checkpoint_are_noticed_or_do_not_matter(folder, seed):
    rng = random.Random(seed)
    path, model = newest(folder), make_model(OFFICIAL)
    data, count = path.read_bytes(), 0
    directory = data.index(b"PK\x01\x02")
    for _ in range(50):
        start = rng.choice([0, directory])
        broken = bytearray(data)
        broken[rng.randrange(start, len(data))] = rng.randrange(256)
        path.write_bytes(broken)
        found = outcome(folder)
        count += found is None
        assert found is None or is_same(found, model)
    assert count > 15
