"""Gaussians survive the .ply file, and bad ones do not get into it."""

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.core.types import Splats
from npga_jax.io.splat_ply import write_ply


def read_ply(path):
    """Activated Splats again, by the format's own definition: names and float32."""
    header, body = path.read_bytes().split(b"end_header\n")
    lines = header.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    assert lines[2].startswith("element vertex ")
    assert all(line.startswith("property float ") for line in lines[3:])
    names = [line.split()[-1] for line in lines[3:]]
    table = np.frombuffer(body, "<f4").reshape(int(lines[2].split()[-1]), len(names))
    column = dict(zip(names, table.T, strict=True))

    def columns(prefix, count):
        return np.stack([column[f"{prefix}_{i}"] for i in range(count)], axis=1)

    num_rest = sum(name.startswith("f_rest_") for name in names)
    colors = columns("f_dc", 3)[:, None]
    if num_rest:
        rest = columns("f_rest", num_rest).reshape(len(table), 3, -1)
        colors = np.concatenate([colors, rest.transpose(0, 2, 1)], axis=1)
    return Splats(
        means=np.stack([column[name] for name in "xyz"], axis=1),
        quats=columns("rot", 4),
        scales=np.exp(columns("scale", 3)),
        opacities=1 / (1 + np.exp(-column["opacity"])),
        colors=colors,
    )


def _splats(count=50, num_bases=4, seed=0):
    rng = np.random.default_rng(seed)
    quats = rng.standard_normal((count, 4))
    return Splats(
        means=rng.standard_normal((count, 3)).astype(np.float32),
        quats=(quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32),
        scales=np.exp(rng.uniform(-8, -3, (count, 3))).astype(np.float32),
        opacities=rng.uniform(0.01, 0.99, count).astype(np.float32),
        colors=rng.standard_normal((count, num_bases, 3)).astype(np.float32),
    )


@pytest.mark.parametrize("num_bases", [1, 4, 9, 16])
def test_round_trip(tmp_path, num_bases):
    path = tmp_path / "new" / "head.ply"
    splats = _splats(num_bases=num_bases)
    assert write_ply(path, splats) == 50
    back = read_ply(path)
    for name, ours, read in zip(Splats._fields, splats, back, strict=True):
        assert read.dtype == np.float32
        np.testing.assert_allclose(read, ours, rtol=2e-5, atol=1e-6, err_msg=name)
    assert list(path.parent.iterdir()) == [path]


def test_bytes_are_those_of_the_standard_layout(tmp_path):
    path = tmp_path / "one.ply"
    splats = Splats(
        means=np.array([[1.0, 2.0, 3.0]]),
        quats=np.array([[2.0, 0.0, 0.0, 0.0]]),
        scales=np.exp([[-1.0, -2.0, -3.0]]),
        opacities=np.array([0.5]),
        colors=np.arange(12.0).reshape(1, 4, 3),
    )
    write_ply(path, splats)
    header, body = path.read_bytes().split(b"end_header\n")
    names = [line.split()[-1] for line in header.decode().splitlines()[3:]]
    rest = " ".join(f"f_rest_{i}" for i in range(9))
    assert " ".join(names) == (
        f"x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 {rest} opacity "
        "scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    )
    values = np.frombuffer(body, "<f4")
    # Channel-major: the three higher coefficients of red, of green, of blue.
    colors = [0, 1, 2, 3, 6, 9, 4, 7, 10, 5, 8, 11]
    expected = [1, 2, 3, 0, 0, 0, *colors, 0, -1, -2, -3, 1, 0, 0, 0]
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_dead_slots_are_left_out_even_if_not_finite(tmp_path):
    splats = _splats()
    splats.opacities[::5] = 0.0
    splats.means[::5] = np.nan
    splats.quats[1] = 0.0
    splats.opacities[2] = 1.0
    assert write_ply(tmp_path / "head.ply", splats) == 40
    back = read_ply(tmp_path / "head.ply")
    assert all(np.isfinite(array).all() for array in back)
    np.testing.assert_array_equal(back.quats[0], [1, 0, 0, 0])
    np.testing.assert_allclose(back.opacities[1], 1.0, atol=2e-6)


@pytest.mark.parametrize("field", Splats._fields)
def test_not_finite_is_refused(tmp_path, field):
    splats = _splats()
    getattr(splats, field)[7] = np.nan
    with pytest.raises(InputError, match="1 of 50 Gaussians are not finite"):
        write_ply(tmp_path / "head.ply", splats)
    assert not list(tmp_path.iterdir())


def test_nothing_to_write_and_wrong_shapes(tmp_path):
    splats = _splats()
    with pytest.raises(InputError, match=r"a\.ply: there are no Gaussians to write"):
        write_ply(tmp_path / "a.ply", Splats(*(array[:0] for array in splats)))
    with pytest.raises(InputError, match="no Gaussian has an opacity"):
        write_ply(tmp_path / "a.ply", splats._replace(opacities=np.zeros(50)))
    with pytest.raises(ValueError, match="colors"):
        write_ply(tmp_path / "a.ply", splats._replace(colors=np.zeros((50, 3))))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_ply(tmp_path / "file" / "a.ply", splats)
