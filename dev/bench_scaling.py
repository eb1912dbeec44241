"""How time and memory grow (`benchmark.py {renderer,step} --scaling`).

Each row is a run of the benchmark in a process of its own, whose peak memory is then
that row's. Rows on several devices are a check of correctness: a CPU that is split into
devices is no quicker.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from npga_jax.core import InputError

_SCRIPT = Path(__file__).with_name("benchmark.py")
_MOST_DEVICE_ERROR = 1e-5
"""Of loss and gradient's norm on several devices, relative to one."""


class Table(NamedTuple):
    """Runs that differ in one thing."""

    part: str
    title: str
    rows: dict[str, tuple[str, ...]]  # label -> options


def _over(
    option: str, values: tuple[int, ...], *more: str
) -> dict[str, tuple[str, ...]]:
    return {f"{value:,}": (option, str(value), *more) for value in values}


_NUM_GAUSSIANS = (10_000, 20_000, 50_000, 100_000, 250_000)
_SIZES = ((138, 201), (275, 401), (550, 802), (1100, 1604))
_PIXELS = {f"{w}x{h}": ("--width", str(w), "--height", str(h)) for w, h in _SIZES}
TABLES = (
    Table("renderer", "Gaussians", _over("--num-gaussians", _NUM_GAUSSIANS)),
    Table("renderer", "pixels", _PIXELS),
    Table("renderer", "channels", _over("--channels", (3, 16, 32))),
    Table("step", "Gaussians", _over("--num-gaussians", _NUM_GAUSSIANS)),
    Table("step", "pixels", _PIXELS),
    Table("step", "views", _over("--views", (1, 2, 4))),
    Table("step", "devices", _over("--num-devices", (1, 2, 4, 8), "--views", "8")),
)


def measure(parts: tuple[str, ...], *, repeats: int) -> dict[str, Any]:
    """Runs the tables of some parts; ready for JSON."""
    tables = []
    for table in TABLES:
        if table.part not in parts:
            continue
        rows = []
        for label, options in table.rows.items():
            print(f"{table.part}, {table.title}: {label}", file=sys.stderr, flush=True)
            report = run(table.part, (*options, "--repeats", str(repeats)))
            rows.append({"label": label, **summary(table.part, report)})
        if table.title == "devices":
            for row in rows:
                row["error"] = max(
                    abs(row[key] / rows[0][key] - 1.0) for key in ("loss", "grad_norm")
                )
        tables.append({"part": table.part, "title": table.title, "rows": rows})
    return {"repeats": repeats, "tables": tables}


def run(part: str, options: tuple[str, ...]) -> dict[str, Any]:
    """One benchmark in a new process: its JSON.

    Raises:
      InputError: if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        command = [sys.executable, str(_SCRIPT), part, *options]
        command += ["--no-compare", "--output", str(path)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            why = (result.stderr.strip() or "nothing said").splitlines()[-1]
            raise InputError(
                f"'{' '.join(command[1:])}' has ended with {result.returncode}: {why}"
            )
        return json.loads(path.read_text())


def summary(part: str, report: dict[str, Any]) -> dict[str, float]:
    """What a row shows of a report."""
    values, row = report[part], {}
    if part == "renderer":
        for name, key in (("forward", "forward_ms"), ("forward+backward", "both_ms")):
            row[key] = values["times"][name]["npga_jax"]["median_ms"]
        slowest = row["both_ms"]
    else:
        slowest = row["step_ms"] = values["times"]["training step"]["median_ms"]
        row |= {key: values["first_step"][key] for key in ("loss", "grad_norm")}
    num_isects = values["num_isects"] * values.get("views", 1)
    return {
        "num_isects": num_isects,
        **row,
        "ms_per_million_isects": 1e6 * slowest / num_isects,
        "rss_peak_mb": values["rss_peak_mb"],
    }


def missed(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows on several devices that do not compute what one device does."""
    rows = [row for table in report["tables"] for row in table["rows"]]
    # NaN is an error too.
    return [r for r in rows if not r.get("error", 0.0) <= _MOST_DEVICE_ERROR]


def print_report(report: dict[str, Any]) -> None:
    """Markdown, medians."""
    for table in report["tables"]:
        keys = [key for key in table["rows"][0] if key != "label"]
        print(f"\n{table['part']}:\n| {table['title']} | {' | '.join(keys)} |")
        print("|---" * (len(keys) + 1) + "|")
        for row in table["rows"]:
            cells = (
                f"{row[key]:.4g}" if key != "num_isects" else f"{row[key]:,}"
                for key in keys
            )
            print(f"| {row['label']} | {' | '.join(cells)} |")
