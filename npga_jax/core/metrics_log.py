"""A log of a run: one JSON object a line, whole after a kill."""

import json
from pathlib import Path
from typing import Any

from npga_jax.core.files import atomic_write

METRICS_FILE = "metrics.jsonl"


class MetricsLog:
    """A file such as metrics.jsonl: one JSON object a line, flushed at once."""

    def __init__(self, folder: Path, *, from_step: int, name: str = METRICS_FILE):
        """Opens the log; lines of steps beyond `from_step` are taken back."""
        self._path = folder / name
        self.steps: set[int] = set()
        kept = []
        if from_step > 0 and self._path.is_file():
            for line in self._path.read_text(errors="replace").splitlines():
                try:
                    step = json.loads(line)["step"]
                    if step <= from_step:
                        kept.append(line)
                        self.steps.add(step)
                except (ValueError, KeyError, TypeError):
                    continue  # The last line of a killed run may be half a line.
        with atomic_write(self._path) as file:
            file.write("".join(line + "\n" for line in kept).encode())
        self._file = self._path.open("a")

    def write(self, **values: Any) -> None:
        """Appends one line; one of its values is the step."""
        self.steps.add(values["step"])
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
