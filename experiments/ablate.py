"""Trains variants at equal budget: `python experiments/ablate.py --subject 074`."""

import dataclasses
import json
import shlex
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro

from npga_jax.app import cli
from npga_jax.core import (
    InputError,
    atomic_write,
    check_writable,
    differences,
    from_json,
    runtime,
    write_json,
)
from npga_jax.training import TrainConfig, preset_from_argv, read_config


class Row(NamedTuple):
    """What a variant changes in the full method: settings, or the method itself."""

    options: tuple[str, ...] = ()
    """Of experiments/train.py."""
    method: Callable[[Any], Any] | None = None
    """Method -> Method, applied to what the settings give."""


def without_density(method: Any) -> Any:
    """The cloud stays as it starts, on all slots."""
    from npga_jax import DensityControl

    return method.replace(density=DensityControl())


def without_detail(method: Any) -> Any:
    """F alone moves the Gaussians."""
    from npga_jax.avatar import no_detail

    return method.replace(detail=method.detail.replace(apply=no_detail))


def static(method: Any) -> Any:
    """Nothing moves."""
    from npga_jax.avatar import no_motion

    forward = method.forward.replace(apply=no_motion)
    return without_detail(method.replace(forward=forward))


ROWS: dict[str, Row] = {
    "full": Row(),
    "vanilla: G alone": Row(
        (
            *("--forward.source", "none", "--detail.no-reads-features"),
            *("--loss.laplacian-features", "0", "--loss.laplacian-dynamics", "0"),
            *("--loss.lpips", "0"),
        ),
        without_density,
    ),
    "no F": Row(("--forward.source", "none")),
    "F tuned": Row(("--forward.tuned",)),
    "F alone": Row(method=without_detail),
    "G reaches far": Row(("--forward.detail-reach", "1", "--optim.detail", "2e-4")),
    "G learns fast": Row(
        (
            *("--forward.detail-reach", "1", "--optim.detail", "1.5e-3"),
            *("--loss.residual", "0.01"),
        )
    ),
    "static": Row(("--forward.source", "none"), static),
    "G hears all of the codes": Row(("--detail.tracking-noise", "0")),
    "no features": Row(("--detail.no-reads-features",)),
    "with Laplacian": Row(
        (
            *("--loss.laplacian-features", "0.01"),
            *("--loss.laplacian-dynamics", "0.01"),
        )
    ),
    "no density control": Row(method=without_density),
    "MCMC": Row(("--density.strategy", "mcmc", "--loss.opacity", "0.01")),
    "with LPIPS": Row(("--loss.lpips", "0.05")),
    "with CNN": Row(("--loss.screen", "1")),
    "eyes and mouth weighted": Row(("--loss.parts", "0.8")),
    "rare expressions more often": Row(("--balance", "1")),
    "half size first": Row(("--halvings", "0.3")),
    "no bones": Row(("--gaussians.no-bones",)),
    "neutral clouds only": Row(("--gaussians.expressive-frames", "0")),
    "two views a step": Row(("--views-per-step", "2")),
    "blendshape codes": Row(("--capture.driving", "blendshapes")),
}
RESULTS_FILE = "ablation.json"
FREE_TO_CHANGE = {"rows", "seeds", "output", "data_root"}
"""What may differ between commands that fill one table."""
SHOWN = (
    ("self_reenactment", "face", "psnr", "face dB"),
    ("self_reenactment", "head", "psnr", "head dB"),
    ("self_reenactment", "mouth", "psnr", "mouth dB"),
    ("self_reenactment", "face", "lpips_alex", "face LPIPS"),
    ("novel_view", "face", "psnr", "novel view, face dB"),
)


@dataclasses.dataclass(frozen=True)
class AblateConfig:
    """Train every variant with several seeds, measure all alike, write one table.

    What is done is not done again: the same command goes on after Ctrl-C, or with more
    variants and seeds. Other settings need another --output.
    """

    subject: str = "demo"
    """Participant, as for experiments/train.py."""
    data_root: Path | None = None
    """Folder that holds the subjects; default: $NPGA_DATA."""
    output: Path | None = None
    """Folder of the runs and the table; default: runs/<subject>/ablation."""
    rows: tuple[str, ...] = ()
    """Variants by name; default: all of them."""
    seeds: int = 3
    """Runs of each variant, with seeds 0, 1, ..."""
    steps: int = 2_000
    """Steps of each run."""
    driving: str = "nphm"
    """Codes of all variants that do not say otherwise."""
    frame_step: int = 2
    """Measure every n-th held-out frame."""
    camera_step: int = 4
    """Measure every n-th camera, and the held-out one."""
    options: str = ""
    """More options of train.py for every run: --options="--capture.width 137"."""


def main(cfg: AblateConfig) -> None:
    runtime.configure()
    output = cfg.output or Path("runs") / cfg.subject / "ablation"
    names = cfg.rows or tuple(ROWS)
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise InputError(
            f"there is no variant '{unknown[0]}'; there are {', '.join(ROWS)}."
        )
    if min(cfg.seeds, cfg.steps, cfg.frame_step, cfg.camera_step) < 1:
        raise InputError(
            "--seeds, --steps, --frame-step and --camera-step must be 1 or more."
        )
    check_writable(output)
    check_same(output / RESULTS_FILE, cfg)
    # All first seeds come before all second ones: a table that is cut short is whole.
    jobs = [(name, seed) for seed in range(cfg.seeds) for name in names]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    write_results(output, cfg, results)
    began = time.monotonic()
    for done, (name, seed) in enumerate(jobs):
        result = run_one(cfg, name, seed, folder_of(output, name, seed))
        results[name].append(result)
        left = (time.monotonic() - began) / (done + 1) * (len(jobs) - done - 1)
        print(
            f"[{done + 1}/{len(jobs)}] {name}, seed {seed}: "
            + ", ".join(f"{label} {x}" for label, x in said_of(result).items())
            + f"; about {left / 60:.0f} min left",
            flush=True,
        )
        write_results(output, cfg, results)
    write_pictures(output, cfg, names)
    print((output / "table.md").read_text())


def check_same(path: Path, cfg: AblateConfig) -> None:
    """Refuses to put runs of another budget into a table that was begun.

    Args:
      path: what `write_results` left, if it did.
      cfg: what is asked for now; more variants and more seeds may be.

    Raises:
      InputError: the table was begun with other settings, or is none.
    """
    if not path.is_file():
        return
    try:
        begun = from_json(AblateConfig, json.loads(path.read_text())["settings"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be understood ({error}); it should be as this script "
            "writes it. Choose another --output."
        ) from error
    changes = differences(begun, cfg, FREE_TO_CHANGE)
    if changes:
        raise InputError(
            f"the table in {path.parent} was begun with other settings: "
            f"{'; '.join(changes)}. Give the original ones, or choose another --output."
        )


def folder_of(output: Path, name: str, seed: int) -> Path:
    """The run folder of a variant and seed."""
    slug = name.replace(" ", "_").replace(":", "").replace(",", "")
    return output / slug / f"seed_{seed}"


def run_one(cfg: AblateConfig, name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Trains and measures one variant, as far as that is not done yet."""
    import jax

    from npga_jax import train

    target = folder / RESULTS_FILE
    if target.is_file():
        return json.loads(target.read_text())
    row = ROWS[name]
    try:
        run = train(settings_of(cfg, row, seed, folder), partial(method_of, row))
    except InputError as error:
        raise InputError(f"training '{name}' with seed {seed}: {error}") from error
    result = measure(cfg, run)
    write_json(target, result)
    # Each variant has programs of its own, which nobody else runs.
    jax.clear_caches()
    return result


def method_of(row: Row, settings: TrainConfig) -> Any:
    """The method of a variant."""
    from npga_jax import default_method

    full = default_method(settings)
    return full if row.method is None else row.method(full)


def settings_of(cfg: AblateConfig, row: Row, seed: int, folder: Path) -> TrainConfig:
    """The settings of a run, or of what it has begun with."""
    if (folder / "config.json").is_file():
        return dataclasses.replace(
            read_config(folder), resume=True, output=folder, data_root=cfg.data_root
        )
    argv = ["--subject", cfg.subject, "--output", str(folder), "--no-evaluate"]
    argv += ["--seed", str(seed), "--steps", str(cfg.steps)]
    if cfg.subject != "demo":
        argv += ["--capture.driving", cfg.driving]
    if cfg.data_root is not None:
        argv += ["--data-root", str(cfg.data_root)]
    argv += [*shlex.split(cfg.options), *row.options]
    return tyro.cli(TrainConfig, args=argv, default=preset_from_argv(argv))


def measure(cfg: AblateConfig, run: Any) -> dict[str, Any]:
    """Scores of a run on some held-out images."""
    from npga_jax.evaluation import evaluate_views
    from npga_jax.metrics import make_lpips

    lpips = {"lpips_alex": make_lpips("alex")}
    held_out = run.config.capture.held_out_camera
    chosen = (*run.capture.cameras[:: cfg.camera_step], held_out)
    tests = {
        "self_reenactment": [
            v._replace(cameras=tuple(dict.fromkeys(chosen)))
            for v in run.split.self_reenactment[:: cfg.frame_step]
        ],
        "novel_view": run.split.novel_view[:: 4 * cfg.frame_step],
    }
    result: dict[str, Any] = {
        name: evaluate_views(
            run.render_fn,
            run.capture,
            views,
            lpips_fns=lpips,
            lpips_vgg_images=0,
        )
        for name, views in tests.items()
    }
    result["seconds"] = run.seconds["training"]
    result["num_gaussians"] = int(np.sum(run.alive))
    return result


def pick(result: dict[str, Any], split: str, region: str, metric: str) -> float:
    """One figure of a result; NaN where it was not measured."""
    value = result[split].get(region, {}).get(metric)
    return np.nan if value is None else float(value)


def said_of(result: dict[str, Any]) -> dict[str, str]:
    """The figures of a result that were measured, by label."""
    figures = {label: pick(result, *at) for *at, label in SHOWN}
    return {label: f"{x:.3f}" for label, x in figures.items() if not np.isnan(x)}


def write_results(output: Path, cfg: AblateConfig, results: dict) -> None:
    """The table so far, and all figures."""
    rows = {
        name: {"options": ROWS[name].options, "runs": r} for name, r in results.items()
    }
    write_json(
        output / RESULTS_FILE, {"settings": dataclasses.asdict(cfg), "rows": rows}
    )
    with atomic_write(output / "table.md") as file:
        file.write(format_table(results).encode())


def format_table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Mean and, with more than one seed, standard deviation over seeds.

    What was not measured, as without a sequence that is held out, is "-".
    """
    labels = [label for *_, label in SHOWN]
    lines = [
        f"| variant | {' | '.join(labels)} | Gaussians | training s | runs |",
        "|" + "---|" * (len(labels) + 4),
    ]

    def cell(values, digits):
        if np.isnan(values).any():
            return "-"
        spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
        return f"{np.mean(values):.{digits}f}{spread}"

    for name, runs in results.items():
        if not runs:
            continue
        cells = [
            cell([pick(r, *at) for r in runs], 4 if "LPIPS" in label else 2)
            for *at, label in SHOWN
        ]
        gaussians = cell([r["num_gaussians"] for r in runs], 0)
        seconds = cell([r["seconds"] for r in runs], 0)
        lines.append(
            f"| {name} | {' | '.join(cells)} | {gaussians} | {seconds} | {len(runs)} |"
        )
    return "\n".join(lines) + "\n"


def write_pictures(output: Path, cfg: AblateConfig, names: tuple[str, ...]) -> None:
    """The most expressive held-out frame as each variant shows it, beside the truth.

    Without a sequence that is held out it is a training frame, which no variant saw
    from this camera.
    """
    from PIL import Image, ImageDraw

    from npga_jax.evaluation import ground_truth, render_cameras
    from npga_jax.io import write_png
    from npga_jax.training import load_run, most_expressive

    panels = []
    for name in names:
        folder = folder_of(output, name, 0)
        method = method_of(ROWS[name], read_config(folder))
        run = load_run(folder, data_root=cfg.data_root, method=method)
        camera = run.config.capture.held_out_camera
        views = run.split.self_reenactment or run.split.novel_view
        view = most_expressive(run.capture, views)
        if not panels:
            truth = ground_truth(run.capture, view.timestep, camera)
            panels.append(("truth", np.asarray(truth)))
        render = render_cameras(
            run.render_fn, run.capture, view._replace(cameras=(camera,))
        )
        panels.append((name, np.asarray(render[0])))
    height, width = panels[0][1].shape[:2]
    columns = min(5, len(panels))
    sheet = Image.new(
        "RGB", (columns * width, -(-len(panels) // columns) * (height + 18)), "white"
    )
    for i, (name, image) in enumerate(panels):
        x, y = i % columns * width, i // columns * (height + 18)
        picture = Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8))
        sheet.paste(picture, (x, y + 18))
        ImageDraw.Draw(sheet).text((x + 4, y + 3), name, fill="black")
    write_png(output / "frames.png", np.asarray(sheet))


if __name__ == "__main__":
    cli.run(main, AblateConfig)
