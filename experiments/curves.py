"""Quality against steps and seconds: `python experiments/curves.py --runs A B`."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np

from npga_jax.app import cli
from npga_jax.core import InputError, atomic_write, check_writable
from npga_jax.training import CURVE_FILE

Curve = list[dict[str, float]]
_AXES = ("step", "seconds")


@dataclasses.dataclass(frozen=True)
class CurvesConfig:
    """Compare how runs get better, from the tests that they made on the way.

    Runs make them with --test-every of experiments/train.py. Writes curves.md and
    curves.png.
    """

    runs: tuple[Path, ...]
    """Run folders."""
    names: tuple[str, ...] = ()
    """What to call them; default: their folders' names."""
    figure: str = "self_reenactment_face"
    """Which figure of curve.jsonl, dB."""
    shares: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0)
    """Shares of the steps until a run's last test, after which the table shows it."""
    output: Path = Path("runs/curves")
    """Folder of the table and the picture."""


def main(cfg: CurvesConfig) -> None:
    names = cfg.names or tuple(run.name for run in cfg.runs)
    if not cfg.runs or len(names) != len(cfg.runs):
        raise InputError(
            f"there are {len(cfg.runs)} --runs and {len(names)} --names; give at least "
            "one run, and a name for each or none."
        )
    if len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise InputError(
            f"the runs are called {', '.join(map(repr, names))}: give --names that "
            "tell them apart."
        )
    if not cfg.shares or not all(0 < share <= 1 for share in cfg.shares):
        raise InputError(
            f"--shares {cfg.shares}: give some, each above 0 and at most 1."
        )
    curves = {
        name: read_curve(run, cfg.figure)
        for name, run in zip(names, cfg.runs, strict=True)
    }
    check_writable(cfg.output)
    table = format_table(curves, cfg.figure, cfg.shares)
    with atomic_write(cfg.output / "curves.md") as file:
        file.write(table.encode())
    draw(curves, cfg.figure, cfg.output / "curves.png")
    print(table)


def read_curve(run: Path, figure: str) -> Curve:
    """The tests of a run in the order of their steps, each with the figure."""
    path = run / CURVE_FILE
    if not path.is_file():
        raise InputError(
            f"{run} has no {CURVE_FILE}; train with --test-every 1000, for instance."
        )
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        check_figure(path, lines, figure)
        curve = [{key: float(line[key]) for key in (*_AXES, figure)} for line in lines]
        numbers = [value for point in curve for value in point.values()]
        if not np.isfinite(numbers).all():
            raise ValueError("there are numbers that are not finite")
        if any(b["step"] <= a["step"] for a, b in itertools.pairwise(curve)):
            raise ValueError("steps do not rise")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} does not hold step, seconds and {figure} in lines that follow "
            f"each other ({error}); give another --figure, or train again."
        ) from error
    if not curve:
        raise InputError(
            f"{path} is empty: the run has made no test yet; see "
            "--test-every of experiments/train.py."
        )
    return curve


def check_figure(path: Path, lines: list[dict[str, float]], figure: str) -> None:
    """Names the figures of a curve where all of its tests lack the one asked for.

    A run has none of `self_reenactment` where no sequence is held out, and none of
    regions where there are no label maps.

    Raises:
      InputError: there are others.
    """
    first = lines[0] if lines and isinstance(lines[0], dict) else {}
    others = [key for key in first if key not in _AXES]
    if others and not any(figure in line for line in lines):
        raise InputError(
            f"{path} has no figure {figure}, but {', '.join(others)}: give one of "
            "them with --figure."
        )


def at_step(curve: Curve, step: float, key: str) -> float | None:
    """A value between the tests around a step; None before the first one."""
    for before, after in itertools.pairwise(curve):
        if before["step"] <= step <= after["step"]:
            share = (step - before["step"]) / (after["step"] - before["step"])
            return (1 - share) * before[key] + share * after[key]
    return curve[0][key] if step == curve[0]["step"] else None


def format_table(
    curves: dict[str, Curve], figure: str, shares: tuple[float, ...]
) -> str:
    """A row a run: the figure after shares of the steps, and the seconds of all."""
    heads = [f"{100 * share:g} %" for share in shares]
    lines = [
        f"{figure.replace('_', ' ')}, dB",
        "",
        f"| run | {' | '.join(heads)} | last step | seconds |",
        "|" + "---|" * (len(shares) + 3),
    ]
    for name, curve in curves.items():
        steps = curve[-1]["step"]
        values = (at_step(curve, share * steps, figure) for share in shares)
        cells = ["" if value is None else f"{value:.2f}" for value in values]
        seconds = curve[-1]["seconds"]
        lines.append(f"| {name} | {' | '.join(cells)} | {steps:.0f} | {seconds:.0f} |")
    return "\n".join(lines) + "\n"


def draw(curves: dict[str, Curve], figure: str, path: Path) -> None:
    """The figure against steps, and against seconds of training."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams["text.parse_math"] = False
    canvas, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True)
    for axis, key in zip(axes, _AXES, strict=True):
        for name, curve in curves.items():
            xs, ys = ([point[k] for point in curve] for k in (key, figure))
            axis.plot(xs, ys, marker="o", markersize=3, label=f" {name}")
        axis.set_xlabel("steps" if key == "step" else "seconds of training")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"{figure.replace('_', ' ')}, dB")
    axes[1].legend()
    canvas.tight_layout()
    with atomic_write(path) as file:
        canvas.savefig(file, dpi=120, format="png")
    pyplot.close(canvas)


if __name__ == "__main__":
    cli.run(main, CurvesConfig)
