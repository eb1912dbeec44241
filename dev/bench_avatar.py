"""Times an avatar.npz in a fresh process: `dev/bench_avatar.py runs/074/avatar.npz`.

Neither the run nor the capture is looked at, unless `--run` asks what its own renderer
makes of the same codes and cameras.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tyro

from npga_jax.app import cli
from npga_jax.core import runtime, write_json


@dataclasses.dataclass(frozen=True)
class BenchAvatarConfig:
    """Seconds to load an avatar, milliseconds a frame, difference from its run."""

    avatar: tyro.conf.Positional[Path]
    """The file."""
    sizes: tuple[tuple[int, int], ...] = ((275, 401), (550, 802))
    """Widths and heights of the images."""
    frames: int = 30
    """Timed at each size, after one that compiles; each has another code."""
    run: Path | None = None
    """Folder of the run that wrote it: compares one image of each size."""
    data_root: Path | None = None
    """Where the run's capture is, if it has moved."""
    json: Path | None = None
    """Where the figures go as well."""


def main(cfg: BenchAvatarConfig) -> None:
    figures: dict[str, Any] = {"megabytes": cfg.avatar.stat().st_size / 1e6}
    start = time.perf_counter()
    from npga_jax import load

    avatar = load(cfg.avatar)
    figures["load_s"] = time.perf_counter() - start
    figures["process_s"] = time.time() - psutil.Process().create_time()
    figures["num_gaussians"] = avatar.num_gaussians
    figures["sizes"] = {
        f"{width}x{height}": time_size(avatar, width, height, cfg.frames)
        for width, height in cfg.sizes
    }
    if cfg.run is not None:
        own = run_renderer(cfg.run, cfg.data_root)
        for width, height in cfg.sizes:
            expr, viewmat, K = shot(avatar, 1, width, height)
            ours = avatar.render(expr, viewmat, K, width, height)
            pose = np.eye(4, dtype=np.float32)
            theirs = own(expr, pose, viewmat[None], K[None], width, height)[0]
            difference = float(np.max(np.abs(ours - theirs)))
            figures["sizes"][f"{width}x{height}"]["difference"] = difference
    print(table(figures))
    if cfg.json is not None:
        write_json(cfg.json, figures)


def shot(avatar: Any, index: int, width: int, height: int):
    """A code between the neutral one and those of the training, before the camera."""
    random = np.random.default_rng(index)
    noise = random.normal(size=avatar.neutral.shape).astype(np.float32)
    K = avatar.camera.K.copy()
    K[0] *= width / avatar.camera.width
    K[1] *= height / avatar.camera.height
    return avatar.neutral + 0.5 * avatar.code_std * noise, avatar.camera.viewmat, K


def time_size(avatar: Any, width: int, height: int, frames: int) -> dict[str, float]:
    """Seconds of the first image, median milliseconds of the others."""
    seconds = []
    for index in range(frames + 1):
        expr, viewmat, K = shot(avatar, index, width, height)
        start = time.perf_counter()
        avatar.render(expr, viewmat, K, width, height)
        seconds.append(time.perf_counter() - start)
    return {"first_s": seconds[0], "ms": 1e3 * float(np.median(seconds[1:]))}


def run_renderer(folder: Path, data_root: Path | None):
    """The renderer that the run's own evaluation uses."""
    from npga_jax.training import load_run

    return load_run(folder, data_root=data_root).render_fn


def table(figures: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        f"{figures['num_gaussians']:,} Gaussians, {figures['megabytes']:.2f} MB; "
        f"loaded in {figures['load_s']:.2f} s, {figures['process_s']:.2f} s after the "
        "process was started",
        "",
        "| size | ms a frame | first, s | difference from the run |",
        "|---|---|---|---|",
    ]
    for size, row in figures["sizes"].items():
        difference = row.get("difference")
        shown = "" if difference is None else f"{difference:.1e}"
        lines.append(f"| {size} | {row['ms']:.1f} | {row['first_s']:.2f} | {shown} |")
    return "\n".join(lines)


if __name__ == "__main__":
    runtime.configure()
    cli.run(main, BenchAvatarConfig)
