"""How benchmarks take time, and what they say of the machine."""

import os
import platform
import subprocess
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from bench_scenes import REPO

from npga_jax import __version__
from npga_jax.rasterizer import renderer_path


class Gate(NamedTuple):
    """Something that must hold, and whether it does."""

    name: str
    value: float | None  # None: could not be measured
    limit: str  # "<= 3", ">= 80"
    note: str = ""  # why there is no value

    @property
    def passed(self) -> bool | None:
        """None where there is no value."""
        if self.value is None:
            return None
        sign, limit = self.limit.split()
        # Written so that NaN passes nothing.
        return (
            self.value <= float(limit) if sign == "<=" else self.value >= float(limit)
        )


def time_in_turns(
    calls: dict[str, Callable[[], Any]], repeats: int, *, warmups: int = 1
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Runs the calls in turns, A B A B, after `warmups` rounds that are not counted.

    Returns:
      For each call the seconds of the first one, and milliseconds: shortest and median
      wall time, the distance between its quartiles, and the median of the process's CPU
      time. And what each returned last.
    """
    samples, results = {name: [] for name in calls}, {}
    for _ in range(warmups + repeats):
        for name, call in calls.items():
            start = np.array([time.perf_counter(), time.process_time()])
            results[name] = call()
            end = np.array([time.perf_counter(), time.process_time()])
            samples[name].append(1e3 * (end - start))
    times = {}
    for name, rows in samples.items():
        walls, cpus = np.transpose(rows[warmups:])
        low, median, high = np.percentile(walls, [25, 50, 75])
        values = {
            "first_call_s": rows[0][0] / 1e3,
            "min_ms": walls.min(),
            "median_ms": median,
            "spread_ms": high - low,
            "cpu_ms": np.median(cpus),
        }
        times[name] = {key: float(value) for key, value in values.items()}
    return times, results


def describe_machine() -> dict[str, Any]:
    """Device, versions, commit, and flags that speed depends on."""
    git = ["git", "-C", str(REPO), "describe", "--always", "--dirty", "--abbrev=7"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    except OSError:  # There is no git.
        commit = ""
    return {
        "device": f"{jax.devices()[0].device_kind} ({platform.machine()})",
        "cpus": os.cpu_count(),
        "versions": f"npga_jax {__version__}, jax {jax.__version__}, numpy "
        f"{np.__version__}, python {platform.python_version()}",
        "commit": commit or "unknown",
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "core": _core(),
    }


def device_peak_mb() -> float | None:
    """Most memory that the device held so far, MiB; None where it does not say."""
    memory = jax.local_devices()[0].memory_stats() or {}
    return memory.get("peak_bytes_in_use", 0) / 2**20 or None


def _core() -> str:
    path = renderer_path()
    return f"{path.path} ({path.reason})" if path.reason else path.path
