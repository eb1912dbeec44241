"""`experiments/mesh.py`: heads to files, and its mistakes as sentences."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from npga_jax.app import cli
from npga_jax.core.errors import InputError
from npga_jax.io.mesh_files import read_mesh
from npga_jax.nphm.storage import save_head_model
from npga_jax.tracking.head_prior import open_prior
from tests.nphm.test_meshing import CFG, head

SCRIPT = Path(__file__).parents[2] / "experiments" / "mesh.py"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A prior, the codes of two frames, and codes for another model."""
    folder = tmp_path_factory.mktemp("mesh")
    model, codes = head()
    stds = {"geo": 0.3, "exp": [0.1, 0.2, 0.3, 0.4]}
    save_head_model(folder / "prior.npz", model, {"code_std": stds})
    rng = np.random.default_rng(0)
    rotation = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    pose = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    pose[1, :3, :3], pose[1, :3, 3] = 1.5 * rotation, [1, 2, 3]
    tracking = {
        "frame_id": np.array([4, 7]),
        "expr": np.stack([codes.exp, rng.standard_normal(CFG.lat_dim_exp) / 2]),
        "world_from_head": pose,
        "z_id": np.asarray(codes.geo),
        "z_app": np.asarray(codes.app),
        "model": "test",
        "head_unit": "m",
    }
    tracking["expr"] = tracking["expr"].astype(np.float32)
    np.savez(folder / "nphm.npz", **tracking)
    np.savez(folder / "other.npz", **tracking | {"z_id": np.zeros(7, np.float32)})
    np.savez(folder / "nan.npz", **tracking | {"z_app": codes.app * np.nan})
    np.savez(folder / "objects.npz", **tracking | {"z_id": np.array([None])})
    del tracking["z_id"], tracking["z_app"]
    np.savez(folder / "no_id.npz", **tracking)
    return folder


def run(script, files, output, *options):
    argv = [f"--output={output}", "--resolution=24", "--components=0", *options]
    if not any(option.startswith("--prior") for option in options):
        argv.append(f"--prior={files / 'prior.npz'}")
    cli.run(script["main"], script["MeshConfig"], argv=argv)


def test_command_line(files, tmp_path):
    """The whole command once, as it is typed."""
    output, picture = tmp_path / "new" / "a.ply", tmp_path / "new" / "a.png"
    result = subprocess.run(
        [
            *(sys.executable, str(SCRIPT), f"--prior={files / 'prior.npz'}"),
            *(f"--output={output}", f"--picture={picture}", "--resolution=24"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    mesh = read_mesh(output)
    assert f"wrote {output}: the mean head, {len(mesh.vertices):,} v" in result.stdout
    assert f"{len(mesh.faces):,} faces, with colour, head frame" in result.stdout
    image = np.asarray(Image.open(picture))
    assert image.shape == (600, 4 * 480, 3)
    for view in np.split(image, 4, axis=1):
        assert 0.05 < (view < 250).any(-1).mean() < 0.9


def test_frames_units_and_world(script, files, tmp_path, capsys):
    codes = f"--codes={files / 'nphm.npz'}"

    def mesh(*options):
        run(script, files, tmp_path / "a.ply", codes, *options)
        return read_mesh(tmp_path / "a.ply")

    first, second = mesh(), mesh("--frame=7")
    out = capsys.readouterr().out
    assert "nphm.npz frame 4, " in out
    assert "nphm.npz frame 7, " in out
    assert len(first.vertices) != len(second.vertices)
    assert len(mesh("--canonical").vertices) == len(
        mesh("--canonical", "--frame=7").vertices
    )
    units = mesh("--frame=7", "--units=nphm")
    np.testing.assert_allclose(units.vertices, second.vertices * 4, rtol=1e-6)
    world = mesh("--frame=7", "--world")
    x, y, z = (1.5 * second.vertices).T
    np.testing.assert_allclose(
        world.vertices, np.stack([z + 1, y + 2, 3 - x], 1), atol=1e-5
    )
    x, y, z = second.normals.T
    np.testing.assert_allclose(world.normals, np.stack([z, y, -x], 1), atol=1e-6)
    np.testing.assert_array_equal(world.colors, second.colors)
    assert mesh("--no-color").colors is None


def test_random_heads_are_repeatable(script, files, tmp_path):
    heads = []
    for seed in (1, 1, 2):
        run(script, files, tmp_path / "a.obj", f"--seed={seed}", "--canonical")
        heads.append(read_mesh(tmp_path / "a.obj").vertices)
    np.testing.assert_array_equal(heads[0], heads[1])
    assert heads[0].shape != heads[2].shape or (heads[0] != heads[2]).any()


def test_spread_of_random_codes(script, files):
    prior = open_prior(files / "prior.npz")
    codes = [script["random_codes"](prior, seed) for seed in range(300)]
    geo, app, exp = (
        np.stack([np.asarray(getattr(c, name)) for c in codes])
        for name in ("geo", "app", "exp")
    )
    assert geo.std() == pytest.approx(0.3, rel=0.05)
    np.testing.assert_allclose(exp.std(axis=0), [0.1, 0.2, 0.3, 0.4], rtol=0.15)
    assert (app == 0).all()


def test_the_box_and_its_margin(script, files, tmp_path, capsys):
    """The random surface fills its box, however large."""
    for margin, (low, high) in {
        0.0: ([-0.55, -0.5, -0.95], [0.55, 0.75, 0.4]),
        0.2: ([-0.75, -0.5, -1.15], [0.75, 0.95, 0.6]),
    }.items():
        output = tmp_path / "a.ply"
        run(script, files, output, "--units=nphm", f"--margin={margin}")
        vertices = read_mesh(output).vertices
        sides = script["cut_sides"](vertices, np.array(low), np.array(high))
        assert sides
        cut = f"note: the box cuts the head off at its {' and '.join(sides)}; "
        assert cut in capsys.readouterr().out
        assert not script["cut_sides"](vertices, np.array(low) - 1, np.array(high) + 1)


def test_cut_sides(script):
    low, high = -np.ones(3), np.ones(3)
    inside = np.array([[0, -1, 0], [0, 0.9, 0.0]])
    assert script["cut_sides"](inside, low, high) == []
    points = np.array([[0, 1, 0], [-1, 0, 0.0]])
    assert script["cut_sides"](points, low, high) == ["top", "right side"]
    assert script["cut_sides"](-points, low, high) == ["left side"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prior={}/none.npz"], "none.npz"),
        (["--codes={}/none.npz"], "none.npz; expected an .npz of driving codes"),
        (["--codes={}/other.npz"], "z_id is (7,) float32, the head model takes"),
        (["--codes={}/nan.npz"], "z_app is not finite"),
        (["--codes={}/no_id.npz"], "no identity (z_id)"),
        (["--codes={}/objects.npz"], "'z_id' cannot be used"),
        (["--codes={}/nphm.npz", "--frame=5"], "2 frames from 4 to 7"),
        (["--codes={}/nphm.npz", "--seed=5"], "give one of them"),
        (["--codes={}/nphm.npz", "--world", "--units=nphm"], "--world is in metres"),
        (["--frame=4"], "--frame needs"),
        (["--frame=0"], "--frame needs"),
        (["--world"], "--world needs"),
        (["--seed=-1"], "--seed is -1"),
        (["--resolution=4"], "--resolution is 4"),
        (["--resolution=4096"], "--resolution is 4096"),
        (["--margin=-0.1"], "--margin is -0.1"),
        (["--margin=nan"], "--margin is nan"),
        (["--components=-1"], "--components is -1"),
        (["--picture=a.jpg"], "does not end in .png"),
        (["--output=a.stl"], "does not end in .ply or .obj"),
    ],
)
def test_mistakes(script, files, tmp_path, capsys, options, message):
    options = [option.format(files) for option in options]
    with pytest.raises(SystemExit) as end:
        run(script, files, tmp_path / "a.ply", *options)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not list(tmp_path.iterdir())


def test_no_packaged_prior(script, monkeypatch, tmp_path):
    place = "npga_jax.tracking.head_prior.packaged_prior"
    monkeypatch.setattr(place, lambda: tmp_path / "default.npz")
    with pytest.raises(InputError, match="--prior"):
        script["main"](script["MeshConfig"](output=tmp_path / "a.ply"))
