"""Writes the surface of a head as .ply or .obj: `python experiments/mesh.py`."""

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np

from npga_jax.app import cli
from npga_jax.core import InputError, load_npz, runtime

_MAX_RESOLUTION = 512
_MAX_MARGIN = 2.0
_MAX_BYTES = 2**30
"""Of a tracking file's arrays: far more than an hour of codes takes."""
_PICTURE_SIZE = (480, 600)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Write a head as a mesh: a tracked one, the mean one, or a random one."""

    prior: Path | None = None
    """Head model: an .npz, or a MonoNPHM checkpoint; default: the packaged one."""
    codes: Path | None = None
    """Tracking file (nphm.npz) with the codes of the head; default: the mean head."""
    frame: int | None = None
    """Which frame of --codes, by its frame_id (the number of the video's frame, not
    counted among those that are used); default: the first."""
    seed: int | None = None
    """Draw a random head instead of the mean one."""
    output: Path = Path("head.ply")
    """The file to write, .ply or .obj."""
    canonical: bool = False
    """The neutral head, without the expression."""
    resolution: int = 256
    """Grid points along each side of the box around the head."""
    margin: float = 0.0
    """Enlarge that box on all sides but the lower, by so many NPHM units (25 cm)."""
    units: Literal["m", "nphm"] = "m"
    """Metres, or NPHM's unit, which is 25 cm."""
    world: bool = False
    """Put the head where --codes has it in the capture's world."""
    color: bool = True
    """Give vertices colours, if the head model has any."""
    components: int = 1
    """Keep so many of the largest connected pieces of the surface; 0 for all."""
    picture: Path | None = None
    """Also draw the head from the front and from its left side, as .png."""


def main(cfg: MeshConfig) -> None:
    runtime.configure()
    from npga_jax.io import check_mesh_path, write_mesh
    from npga_jax.nphm import METRES_PER_UNIT, TRACKING_BOX, head_mesh, zero_codes
    from npga_jax.tracking import open_prior

    _check_options(cfg)
    check_mesh_path(cfg.output)
    prior = open_prior(cfg.prior)
    model = prior.model
    pose, what = np.eye(4), "the mean head"
    if cfg.codes is not None:
        codes, pose, frame = read_codes(cfg.codes, cfg.frame, model.cfg)
        what = f"{cfg.codes} frame {frame}"
    elif cfg.seed is not None:
        codes = random_codes(prior, cfg.seed)
        what = f"a random head (seed {cfg.seed})"
    else:
        codes = zero_codes(model.cfg)
    low, high = np.array(TRACKING_BOX) + cfg.margin * np.array([[-1, 0, -1], [1, 1, 1]])
    start = time.perf_counter()
    mesh = head_mesh(
        model,
        codes,
        posed=not cfg.canonical,
        resolution=cfg.resolution,
        box=(tuple(low.tolist()), tuple(high.tolist())),
        with_color=cfg.color,
        keep_components=cfg.components,
    )
    seconds = time.perf_counter() - start
    vertices, normals = mesh.vertices, mesh.normals
    if cfg.units == "m":
        vertices = vertices * METRES_PER_UNIT
    if cfg.world:
        rotation = pose[:3, :3] / np.cbrt(np.linalg.det(pose[:3, :3]))
        vertices = vertices @ pose[:3, :3].T + pose[:3, 3]
        normals = normals @ rotation.T
    write_mesh(cfg.output, vertices, mesh.faces, normals, mesh.colors)
    if mesh.dropped.components:
        print(
            f"smaller pieces dropped: {mesh.dropped.components}, with "
            f"{mesh.dropped.faces:,} faces (--components 0 keeps them)"
        )
    sides = cut_sides(mesh.vertices, low, high)
    if sides:
        print(
            f"note: the box cuts the head off at its {' and '.join(sides)}; "
            "--margin makes the box larger"
        )
    print(
        f"wrote {cfg.output}: {what}, {len(vertices):,} vertices, {len(mesh.faces):,} "
        f"faces, {'with' if mesh.colors is not None else 'without'} colour, "
        f"{'world' if cfg.world else 'head'} frame, "
        f"{'metres' if cfg.units == 'm' else 'NPHM units'}; {seconds:.1f} s"
    )
    if cfg.picture is not None:
        write_picture(cfg.picture, mesh)
        print(f"wrote {cfg.picture}")


def _check_options(cfg: MeshConfig) -> None:
    if not 8 <= cfg.resolution <= _MAX_RESOLUTION:
        raise InputError(
            f"--resolution is {cfg.resolution}; expected 8 to {_MAX_RESOLUTION}."
        )
    if not 0 <= cfg.margin <= _MAX_MARGIN:
        raise InputError(f"--margin is {cfg.margin}; expected 0 to {_MAX_MARGIN}.")
    if cfg.components < 0:
        raise InputError(f"--components is {cfg.components}; give 0 or more.")
    if cfg.codes is not None and cfg.seed is not None:
        raise InputError("--codes and --seed both choose the head; give one of them.")
    for option, is_given in (("frame", cfg.frame is not None), ("world", cfg.world)):
        if is_given and cfg.codes is None:
            raise InputError(
                f"--{option} needs the tracking file it refers to: give --codes."
            )
    if cfg.seed is not None and cfg.seed < 0:
        raise InputError(f"--seed is {cfg.seed}; give 0 or more.")
    if cfg.world and cfg.units != "m":
        raise InputError("--world is in metres; leave --units nphm out.")
    if cfg.picture is not None and cfg.picture.suffix.lower() != ".png":
        raise InputError(f"--picture {cfg.picture} does not end in .png.")


def read_codes(path: Path, frame: int | None, sizes: Any) -> tuple[Any, Any, int]:
    """The head of one frame of a tracking file.

    Args:
      path: an .npz of driving codes with z_id and, for colours, z_app.
      frame: frame_id; None for the first.
      sizes: NPHMConfig of the head model.

    Returns:
      Codes; world_from_head [4, 4], metres; frame_id.
    """
    from npga_jax.data import load_driving
    from npga_jax.nphm import Codes

    driving = load_driving(path)
    arrays = load_npz(
        path, "an .npz of tracked codes", max_bytes=_MAX_BYTES, names=("z_id", "z_app")
    )
    if "z_id" not in arrays:
        raise InputError(
            f"{path} has expressions of {driving.model} but no identity (z_id): it "
            "was not written by a tracking with this head model."
        )
    geo = arrays["z_id"]
    app = arrays.get("z_app", np.zeros(sizes.lat_dim_app))
    row = 0
    if frame is not None:
        rows = np.flatnonzero(driving.frame_id == frame)
        if len(rows) == 0:
            raise InputError(
                f"--frame {frame}: {path} has {len(driving.frame_id)} frames from "
                f"{driving.frame_id[0]} to {driving.frame_id[-1]}, not this one."
            )
        row = int(rows[0])
    codes = Codes(geo=geo, app=app, exp=driving.expr[row])
    for name, code, size in (
        ("z_id", geo, sizes.lat_dim_geo),
        ("z_app", app, sizes.lat_dim_app),
        ("expr", codes.exp, sizes.lat_dim_exp),
    ):
        if code.shape != (size,) or code.dtype.kind != "f":
            raise InputError(
                f"{path}: {name} is {code.shape} {code.dtype}, the head model takes "
                f"{size} numbers: give --prior the model that it was tracked with."
            )
        if not np.isfinite(code).all():
            raise InputError(f"{path}: {name} is not finite.")
    codes = Codes(*(np.asarray(code, np.float32) for code in codes))
    return codes, driving.world_from_head[row], int(driving.frame_id[row])


def random_codes(prior: Any, seed: int) -> Any:
    """A person and an expression as the training set's spread; the mean appearance.

    Args:
      prior: LoadedPrior.
      seed: of the random numbers.
    """
    from npga_jax.nphm import zero_codes

    rng = np.random.default_rng(seed)
    drawn = {
        "geo": rng.standard_normal(len(prior.geo_std)) * prior.geo_std,
        "exp": rng.standard_normal(len(prior.exp_std)) * prior.exp_std,
    }
    drawn = {name: code.astype(np.float32) for name, code in drawn.items()}
    return zero_codes(prior.model.cfg)._replace(**drawn)


def cut_sides(vertices: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[str]:
    """Where a head touches its box; the neck, which always does, left out."""
    near = 1e-5
    touches = {
        "top": vertices[:, 1].max() > high[1] - near,
        "face": vertices[:, 2].max() > high[2] - near,
        "back": vertices[:, 2].min() < low[2] + near,
        "left side": vertices[:, 0].max() > high[0] - near,
        "right side": vertices[:, 0].min() < low[0] + near,
    }
    return [side for side, is_cut in touches.items() if is_cut]


def write_picture(path: Path, mesh: Any) -> None:
    """Front and left side, shaded; beside them the colours, if there are any."""
    from npga_jax.io import portrait_camera, render_mesh, write_png

    width, height = _PICTURE_SIZE
    views = []
    for colors in (None,) if mesh.colors is None else (None, mesh.colors):
        for azimuth in (0, 90):
            viewmat, intrinsics = portrait_camera(mesh.vertices, azimuth, width, height)
            picture = render_mesh(
                mesh.vertices,
                mesh.faces,
                normals=mesh.normals,
                colors=colors,
                viewmat=viewmat,
                K=intrinsics,
                width=width,
                height=height,
                shading=colors is None,
            )
            views.append(picture.rgb)
    write_png(path, np.concatenate(views, axis=1))


if __name__ == "__main__":
    cli.run(main, MeshConfig)
