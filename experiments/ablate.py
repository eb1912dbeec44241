"""Trains variants at equal budget: `python experiments/ablate.py --subject 074`."""

import dataclasses
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from npga_jax.app import cli
from npga_jax.core import InputError, check_writable, runtime, write_json

_TRAIN = Path(__file__).with_name("train.py")

# What each row changes in the full method, as train.py's own options: any of its
# settings, and so any of the functions that they choose, may be a row.
ROWS: dict[str, tuple[str, ...]] = {
    "full": (),
    "vanilla: G alone": (
        *("--forward.source", "none"),
        "--detail.no-reads-features",
        *("--loss.laplacian-features", "0", "--loss.laplacian-dynamics", "0"),
        *("--loss.lpips", "0", "--density.strategy", "none"),
    ),
    "no F": ("--forward.source", "none"),
    "F tuned": ("--forward.tuned",),
    "F alone": ("--detail.no-enabled",),
    "G reaches far": ("--forward.detail-reach", "1", "--forward.detail-rate", "2e-4"),
    "G learns fast": (
        *("--forward.detail-reach", "1", "--forward.detail-rate", "1.5e-3"),
        *("--forward.detail-residual", "0.01"),
    ),
    "static": ("--forward.source", "none", "--detail.no-enabled"),
    "G hears all of the codes": ("--detail.tracking-noise", "0"),
    "no features": ("--detail.no-reads-features",),
    "with Laplacian": (
        *("--loss.laplacian-features", "0.01"),
        *("--loss.laplacian-dynamics", "0.01"),
    ),
    "no density control": ("--density.strategy", "none"),
    "MCMC": ("--density.strategy", "mcmc", "--loss.opacity", "0.01"),
    "with LPIPS": ("--loss.lpips", "0.05"),
    "with CNN": ("--loss.screen", "1"),
    "eyes and mouth weighted": ("--loss.parts", "0.8"),
    "rare expressions more often": ("--balance", "1"),
    "half size first": ("--halvings", "0.3"),
    "no bones": ("--gaussians.no-bones",),
    "neutral clouds only": ("--gaussians.expressive-frames", "0"),
    "two views a step": ("--views-per-step", "2"),
    "blendshape codes": ("--capture.driving", "blendshapes"),
}
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

    What is done is not done again: the same command goes on after Ctrl-C.
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
    # All first seeds come before all second ones: a table that is cut short is whole.
    jobs = [(name, seed) for seed in range(cfg.seeds) for name in names]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    began = time.monotonic()
    for done, (name, seed) in enumerate(jobs):
        result = run_one(cfg, name, seed, folder_of(output, name, seed))
        results[name].append(result)
        left = (time.monotonic() - began) / (done + 1) * (len(jobs) - done - 1)
        print(
            f"[{done + 1}/{len(jobs)}] {name}, seed {seed}: "
            + ", ".join(f"{label} {pick(result, *at):.3f}" for *at, label in SHOWN)
            + f"; about {left / 60:.0f} min left",
            flush=True,
        )
        write_results(output, cfg, results)
    write_pictures(output, cfg, names)
    print((output / "table.md").read_text())


def folder_of(output: Path, name: str, seed: int) -> Path:
    """The run folder of a variant and seed."""
    slug = name.replace(" ", "_").replace(":", "").replace(",", "")
    return output / slug / f"seed_{seed}"


def run_one(cfg: AblateConfig, name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Trains and measures one variant, as far as that is not done yet."""
    target = folder / "ablation.json"
    if target.is_file():
        return json.loads(target.read_text())
    command = [sys.executable, str(_TRAIN), "--subject", cfg.subject]
    if (folder / "config.json").is_file():
        command += ["--resume", "--output", str(folder), "--no-evaluate"]
    else:
        command += ["--output", str(folder), "--no-evaluate", "--seed", str(seed)]
        command += ["--steps", str(cfg.steps)]
        if cfg.subject != "demo":
            command += ["--capture.driving", cfg.driving]
        command += [*shlex.split(cfg.options), *ROWS[name]]
    if cfg.data_root is not None:
        command += ["--data-root", str(cfg.data_root)]
    code = subprocess.run(command, check=False).returncode
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise InputError(
            f"training '{name}' with seed {seed} failed, as it says above; the command "
            f"was: {' '.join(command)}"
        )
    result = measure(cfg, folder)
    write_json(target, result)
    return result


def measure(cfg: AblateConfig, folder: Path) -> dict[str, Any]:
    """Scores of a run on some held-out images."""
    from npga_jax.evaluation import evaluate_views
    from npga_jax.metrics import make_lpips
    from npga_jax.training import load_run

    run = load_run(folder, data_root=cfg.data_root)
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


def write_results(output: Path, cfg: AblateConfig, results: dict) -> None:
    """The table so far, and all figures."""
    settings = {k: str(v) for k, v in dataclasses.asdict(cfg).items()}
    rows = {name: {"options": ROWS[name], "runs": r} for name, r in results.items()}
    report = {"settings": settings, "rows": rows}
    write_json(output / "ablation.json", report)
    (output / "table.md").write_text(format_table(results))


def format_table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Mean and, with more than one seed, standard deviation over seeds."""
    labels = [label for *_, label in SHOWN]
    lines = [
        f"| variant | {' | '.join(labels)} | Gaussians | training s | runs |",
        "|" + "---|" * (len(labels) + 4),
    ]

    def cell(values, digits):
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
    """The most expressive held-out frame as each variant shows it, beside the truth."""
    from PIL import Image, ImageDraw

    from npga_jax.evaluation import ground_truth, render_cameras
    from npga_jax.training import load_run

    panels = []
    for name in names:
        run = load_run(folder_of(output, name, 0), data_root=cfg.data_root)
        camera = run.config.capture.held_out_camera
        view = max(
            run.split.self_reenactment,
            key=lambda v: float(np.sum(run.capture.driving(v.timestep).expr ** 2)),
        )
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
    sheet.save(output / "frames.png")


if __name__ == "__main__":
    cli.run(main, AblateConfig)
