"""Sources of registered scans: ICT-FaceKit's file, folders of meshes."""

import json
from pathlib import Path

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.io.mesh_files import write_mesh
from npga_jax.prior import ict
from npga_jax.prior.mesh_folder import load_mesh_folder
from npga_jax.prior.scans import EYES, FACE, OUTER, compact_mesh
from tests.small_scans import egg, small_scans, write_mesh_folder

SCANS = Path(__file__).parents[3] / "shared" / "scans" / "ict_facekit_light.npz"
needs_scans = pytest.mark.skipif(
    not SCANS.is_file(), reason="shared/scans is not beside the project"
)


@pytest.fixture(scope="module")
def model():
    return ict.load_ict(SCANS)


@needs_scans
def test_neutral_scans_have_no_expression_and_sit_where_nphm_heads_do(model):
    scans = ict.ict_scans(model, num_identities=3, expressions_per_identity=2, seed=1)
    rows = np.flatnonzero(scans.is_neutral)
    np.testing.assert_array_equal(scans.identity_of[rows], [0, 1, 2])
    np.testing.assert_allclose(
        scans.posed_fn(rows), scans.neutral_fn(np.arange(3)), atol=1e-6
    )
    # The tip of the nose is NPHM's, and nothing reaches below its box by much.
    tip = scans.mean[np.argmax(scans.mean[:, 2])]
    np.testing.assert_allclose(tip, [0, -0.05, 0.285], atol=0.01)
    assert scans.mean[:, 1].min() > -0.62
    assert set(np.unique(scans.vertex_regions)) == {FACE, OUTER, EYES}


@needs_scans
def test_expressions_move_the_face_and_seeds_draw_other_people(model):
    one, other = (
        ict.ict_scans(model, num_identities=2, expressions_per_identity=4, seed=s)
        for s in (0, 1)
    )
    moved = one.posed_fn(np.arange(1, 5)) - one.neutral_fn(np.zeros(4, int))
    assert (np.abs(moved).max((1, 2)) > 0.002).all()
    assert np.abs(one.neutral_fn([0]) - other.neutral_fn([0])).max() > 0.01
    again = ict.ict_scans(model, num_identities=2, expressions_per_identity=4, seed=0)
    np.testing.assert_array_equal(one.posed_fn([3]), again.posed_fn([3]))


def small_ict(**changes) -> dict[str, np.ndarray]:
    count = ict.NUM_VERTICES
    arrays = {
        "neutral": np.zeros((count, 3), np.float32),
        "identity": np.zeros((1, count, 3), np.float16),
        "expression": np.zeros((2, count, 3), np.float16),
        "expression_names": np.array(["a_L", "a_R"]),
        "faces": np.array([[0, 1, 2]], np.int32),
    }
    return {**arrays, **changes}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"neutral": np.zeros((5, 3), np.float32)}, "neutral is"),
        ({"neutral": np.full((ict.NUM_VERTICES, 3), np.nan, np.float32)}, "NaN"),
        ({"neutral": np.zeros((ict.NUM_VERTICES, 3), int)}, "neutral is"),
        ({"faces": np.array([[0, 1, 99999999]])}, "faces name"),
        ({"expression_names": np.array(["only_one"])}, "differ in length"),
        ({"faces": np.array([[0.5, 1, 2]])}, "faces is"),
        ({"identity": np.array([object()], dtype=object)}, "cannot be read"),
    ],
)
def test_bad_ict_files_are_refused(tmp_path, changes, said):
    path = tmp_path / "ict.npz"
    np.savez(path, **small_ict(**changes))
    with pytest.raises(InputError, match=said):
        ict.load_ict(path)


def test_missing_key_and_damage_are_refused(tmp_path):
    arrays = small_ict()
    del arrays["faces"]
    path = tmp_path / "ict.npz"
    np.savez_compressed(path, **arrays)
    with pytest.raises(InputError, match="faces"):
        ict.load_ict(path)
    np.savez_compressed(path, **small_ict())
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for cut in rng.integers(0, len(data), 12):
        path.write_bytes(data[:cut])
        with pytest.raises(InputError):
            ict.load_ict(path)
    with pytest.raises(InputError, match="folder"):
        ict.load_ict(tmp_path)
    with pytest.raises(InputError, match="no file"):
        ict.load_ict(tmp_path / "absent.npz")


def test_drawn_expressions_are_weights_and_pairs_often_act_together():
    names = ("jawOpen", *(f"unit{i}_{s}" for i in range(6) for s in "LR"))
    rng = np.random.default_rng(0)
    weights = ict.draw_expressions(rng, 400, names)
    assert weights.min() >= 0 and weights.max() <= 1
    assert (weights.max(axis=1) > 0).all()
    left, right = weights[:, 1::2].ravel(), weights[:, 2::2].ravel()
    assert np.corrcoef(left, right)[0, 1] > 0.4


def test_compact_mesh_keeps_whole_triangles():
    faces = np.array([[0, 1, 2], [2, 3, 4], [4, 5, 0]])
    keep = np.array([True, False, True, True, True, True])
    small, used = compact_mesh(faces, keep)
    np.testing.assert_array_equal(used, [0, 2, 3, 4, 5])
    np.testing.assert_array_equal(used[small], [[2, 3, 4], [4, 5, 0]])


def test_mesh_folder_holds_what_was_written(tmp_path):
    scans = small_scans(3, 2)
    read = load_mesh_folder(write_mesh_folder(tmp_path, scans))
    assert read.num_scans == scans.num_scans
    np.testing.assert_array_equal(read.identity_of, scans.identity_of)
    np.testing.assert_array_equal(read.is_neutral, scans.is_neutral)
    np.testing.assert_array_equal(read.vertex_regions, scans.vertex_regions)
    everything = np.arange(scans.num_scans)
    np.testing.assert_allclose(
        read.posed_fn(everything), scans.posed_fn(everything), atol=1e-6
    )
    np.testing.assert_allclose(
        read.neutral_fn(np.arange(3)), scans.neutral_fn(np.arange(3)), atol=1e-6
    )
    assert "nobody" in read.source


def test_mesh_folder_mistakes_are_named(tmp_path):
    scans = small_scans(2, 1)
    folder = write_mesh_folder(tmp_path / "good", scans)
    settings = json.loads((folder / "scans.json").read_text())

    def refuse(change: dict, said: str) -> None:
        (folder / "scans.json").write_text(json.dumps({**settings, **change}))
        with pytest.raises(InputError, match=said):
            load_mesh_folder(folder)

    refuse({"metres_per_unit": "mm"}, "metres_per_unit")
    refuse({"metres_per_unit": -1}, "metres_per_unit")
    refuse({"origin": [0, 0]}, "origin")
    refuse({"outer": [[5, 100000]]}, "outer")
    refuse({"unknown": 1}, "unknown")
    (folder / "scans.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        load_mesh_folder(folder)
    (folder / "scans.json").unlink()
    with pytest.raises(InputError, match="metres_per_unit"):
        load_mesh_folder(folder)


def test_mesh_folder_with_other_topology_or_without_neutral_is_refused(tmp_path):
    folder = write_mesh_folder(tmp_path, small_scans(2, 1))
    vertices, faces = egg(8)
    write_mesh(folder / "person1" / "expression1.ply", vertices, faces)
    with pytest.raises(InputError, match="other triangles"):
        load_mesh_folder(folder)
    (folder / "person1" / "neutral.ply").unlink()
    with pytest.raises(InputError, match="0 neutral"):
        load_mesh_folder(folder)
