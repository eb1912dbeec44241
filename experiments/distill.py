"""Distils F for a subject and measures it: `python experiments/distill.py`."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from npga_jax.app import cli
from npga_jax.avatar import ForwardConfig
from npga_jax.core import InputError, check_writable, runtime, write_json
from npga_jax.data import CaptureConfig
from npga_jax.training import TrainConfig

_SHOWN_FRAMES = 3
_TILE = (360, 440)
_REDDEST_MM = 2.0
_LARGEST_RESOLUTION = 512


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """Make the forward motion F of a tracked subject, and say how good it is.

    A training with the same settings takes F from the cache.
    """

    subject: str = "demo"
    """Folder of the subject; "demo" is the packaged capture."""
    data_root: Path | None = None
    """Folder that holds the subjects; default: $NPGA_DATA."""
    prior: Path | None = None
    """Head model that the codes belong to; default: the packaged one."""
    output: Path | None = None
    """Where forward.json and forward.png go; default: runs/<subject>/forward."""
    feature_dim: int = TrainConfig().gaussians.feature_dim
    """Length of the Gaussians' features that F will be able to read."""
    resolution: int = 160
    """Of the drawn head: grid points along each side of its box."""
    capture: CaptureConfig = CaptureConfig(driving="nphm")
    forward: ForwardConfig = ForwardConfig()


def main(cfg: DistillConfig) -> None:
    run_cfg = training_settings(cfg)
    output = cfg.output or Path("runs") / cfg.subject / "forward"
    check_writable(output)
    runtime.configure()
    from npga_jax.app import distill
    from npga_jax.data import expression_codes, holdout_split, open_capture
    from npga_jax.distillation import check_report, make_domain, measure_forward
    from npga_jax.training import distill_options

    capture = open_capture(cfg.subject, cfg.data_root, cfg.capture, decode=False)
    split = holdout_split(
        capture,
        capture.settings.held_out_sequence,
        capture.settings.held_out_camera,
    )
    if not split.self_reenactment:
        raise InputError(
            f"F is measured on a sequence that is held out, and subject {cfg.subject} "
            "has none; name one with --capture.held-out-sequence."
        )
    held_out = expression_codes(capture, split.self_reenactment)
    began = time.perf_counter()
    _, params, person, codes, path, was_cached = distill(capture, run_cfg)
    seconds = time.perf_counter() - began
    how = "taken from the cache" if was_cached else f"distilled in {seconds:.0f} s"
    print(f"F of subject {cfg.subject}, from {len(codes)} training codes: {how}")
    print(f"  {path}")
    domain, backward = make_domain(person, codes)
    report = measure_forward(
        params, backward, domain, held_out, octaves=cfg.forward.octaves
    )
    checks = check_report(report)
    print(
        f"measured with {report.num_codes} codes of "
        f"{split.self_reenactment[0].timestep.sequence}, which is held out, at "
        f"{report.num_points} points of the skin:"
    )
    for check in checks:
        verdict = "met" if check.is_met else "MISSED"
        print(f"  {check.name}: {check.figures}; target {check.target}: {verdict}")
    output.mkdir(parents=True, exist_ok=True)
    write_figures(
        output / "forward.json",
        {
            "subject": cfg.subject,
            "model": capture.driving_model,
            "num_training_codes": len(codes),
            "distilled_in_seconds": None if was_cached else seconds,
            "settings": distill_options(run_cfg)._asdict(),
            **report._asdict(),
            "targets": {c.name: {"target": c.target, "met": c.is_met} for c in checks},
        },
    )
    shown = most_expressive(held_out / person.exp_std)
    frames = [split.self_reenactment[i].timestep.frame_id for i in shown]
    write_picture(
        cfg,
        output / "forward.png",
        person,
        params,
        backward,
        dict(zip(frames, held_out[shown], strict=True)),
    )
    print(f"wrote {output / 'forward.json'} and {output / 'forward.png'}")


def most_expressive(codes: np.ndarray) -> list[int]:
    """The largest code of each third of the sequence [T, E]: neighbours are alike."""
    size = np.linalg.norm(codes, axis=1)
    parts = np.array_split(np.arange(len(codes)), _SHOWN_FRAMES)
    return [int(part[np.argmax(size[part])]) for part in parts if len(part)]


def training_settings(cfg: DistillConfig) -> TrainConfig:
    """The settings of a training that F is for.

    Raises:
      InputError: a number of the script's own that cannot be.
    """
    if cfg.feature_dim < 1:
        raise InputError(f"--feature-dim is {cfg.feature_dim}; give 1 or more.")
    defaults = TrainConfig()
    if not 8 <= cfg.resolution <= _LARGEST_RESOLUTION:
        raise InputError(
            f"--resolution is {cfg.resolution}; expected 8 to {_LARGEST_RESOLUTION}."
        )
    return dataclasses.replace(
        defaults,
        subject=cfg.subject,
        data_root=cfg.data_root,
        prior=cfg.prior,
        capture=cfg.capture,
        forward=cfg.forward,
        gaussians=dataclasses.replace(defaults.gaussians, feature_dim=cfg.feature_dim),
    )


def write_figures(path: Path, figures: dict[str, Any]) -> None:
    """Writes JSON; what could not be measured is null."""
    figures = {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in figures.items()
    }
    write_json(path, figures)


def write_picture(
    cfg: DistillConfig,
    path: Path,
    person: Any,
    params: Any,
    backward: Any,
    codes: dict[int, np.ndarray],
) -> None:
    """The canonical head, then as F poses it: blue where the cycle closes, red 2 mm.

    Args:
      codes: [E] of each frame that is shown.
    """
    import jax.numpy as jnp

    from npga_jax.distillation import cycle_error, pose_points
    from npga_jax.evaluation import captioned_row
    from npga_jax.io import error_colors, portrait_camera, render_mesh, write_png
    from npga_jax.nphm import METRES_PER_UNIT, head_mesh

    mesh = head_mesh(
        person.model,
        person.codes(),
        posed=False,
        resolution=cfg.resolution,
        with_color=False,
    )
    points = jnp.asarray(mesh.vertices * METRES_PER_UNIT)
    octaves = cfg.forward.octaves
    heads = [np.asarray(points)]
    colors: list[np.ndarray | None] = [None]
    for code in codes.values():
        code = jnp.asarray(code)[None]
        heads.append(np.asarray(pose_points(params, points, code, octaves=octaves)[0]))
        error = cycle_error(params, backward, points, code, octaves=octaves)[0]
        colors.append(
            error_colors(np.linalg.norm(np.asarray(error), axis=-1), _REDDEST_MM)
        )
    width, height = _TILE
    rows = []
    for azimuth in (0, 50):
        viewmat, K = portrait_camera(heads[0], azimuth, width, height)
        tiles = [
            render_mesh(
                head,
                mesh.faces,
                colors=color,
                viewmat=viewmat,
                K=K,
                width=width,
                height=height,
            ).rgb
            for head, color in zip(heads, colors, strict=True)
        ]
        captions = [f"frame {frame} by F; red: cycle error 2 mm" for frame in codes]
        rows.append(captioned_row(tiles, ["canonical", *captions]))
    write_png(path, np.concatenate(rows))


if __name__ == "__main__":
    cli.run(main, DistillConfig)
