"""Goldens as files, the recipe of their weights, and a tally of what agrees."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from npga_jax.core import InputError

# Tolerances. Absolute ones are for float32 and quantities of the order of 1.
VALUE = 5e-6
SLOPE = 5e-5
"""First derivatives with respect to points."""
RELATIVE = 1e-4
"""Gradients of codes, and losses: of the largest entry of the reference."""
SECOND_ORDER = 1e-3
"""Gradients of gradients, of the largest entry."""
ROOT = 2e-4
"""Roots: the search stops somewhere below a residual of 5e-5."""


class Golden:
    """One .npz of reference values, which remembers what was asked of it."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with np.load(path, allow_pickle=False) as archive:
                self._arrays = {key: archive[key] for key in archive.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise InputError(
                f"{path} is not an .npz that can be read ({error}); copy it anew."
            ) from None
        self.unread = set(self._arrays)

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self._arrays:
            raise InputError(
                f"{self.path} has no entry {key!r}; expected the golden format of "
                "MonoNPHM that its README describes."
            )
        self.unread.discard(key)
        return self._arrays[key]

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """All entries that begin with `prefix`, by the rest of their names."""
        keys = [key for key in self._arrays if key.startswith(prefix)]
        return {key[len(prefix) :]: self[key] for key in keys}

    def config(self) -> dict[str, Any]:
        """The sizes of the networks that the reference values came from."""
        try:
            config = json.loads(str(self["config_json"]))
        except ValueError as error:
            raise InputError(
                f"{self.path}: its config_json is no JSON ({error})."
            ) from None
        if not isinstance(config, dict):
            raise InputError(f"{self.path}: its config_json is no JSON object.")
        return config

    def companion(self, suffix: str) -> Path:
        """The file beside it whose name goes on with `suffix`."""
        return self.path.with_name(self.path.stem + suffix)


class Line(NamedTuple):
    """The worst error of a group of quantities."""

    group: str
    error: float
    tolerance: float
    worst: str
    count: int

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # False for what is not a number.


class Tally:
    """What one file's comparisons came to, as lines in the order of appearance."""

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}
        self.not_checked: list[str] = []

    def add(self, group: str, name: str, error: float, tolerance: float) -> None:
        """Enters an error; a group keeps its worst."""
        error = float(error)
        line = self.lines.get(group)
        if line is None:
            line = Line(group, error, tolerance, name, 0)
        elif not error <= line.error and line.error == line.error:
            line = line._replace(error=error, worst=name)
        self.lines[group] = line._replace(count=line.count + 1)

    def close(
        self, group: str, name: str, ours: Any, reference: Any, tolerance: float
    ) -> None:
        """Compares by the largest absolute difference."""
        self.add(group, name, _difference(ours, reference), tolerance)

    def relative(
        self, group: str, name: str, ours: Any, reference: Any, tolerance: float
    ) -> None:
        """Compares by the largest difference over the reference's largest entry."""
        scale = np.abs(np.asarray(reference, np.float64)).max(initial=0.0)
        error = _difference(ours, reference)
        self.add(group, name, error / scale if scale > 0 else error, tolerance)

    def same(self, group: str, name: str, equal: bool) -> None:
        """Enters what must be equal to the bit: an error of 0 or infinity."""
        self.add(group, name, 0.0 if equal else np.inf, 0.0)

    @property
    def passed(self) -> bool:
        return all(line.passed for line in self.lines.values())

    def text(self) -> list[str]:
        """One line a group."""
        rows = []
        for line in self.lines.values():
            verdict = "PASS" if line.passed else "FAIL"
            rows.append(
                f"  {verdict}  {line.group:<44} {line.error:8.1e} of "
                f"{line.tolerance:7.1e}  worst of {line.count}: {line.worst}"
            )
        return rows + [f"  not checked: {text}" for text in self.not_checked]


def _difference(ours: Any, reference: Any) -> float:
    ours = np.asarray(ours, np.float64)
    reference = np.asarray(reference, np.float64)
    if ours.shape != reference.shape:
        return np.inf
    return np.abs(ours - reference).max(initial=0.0)


def recipe_weights(
    shapes: Mapping[str, tuple[int, ...]], seed: int, last_layer: str
) -> dict[str, np.ndarray]:
    """Weights by the goldens' recipe.

    Args:
      shapes: of each weight by its full name, `id.` or `ex.` and the official key.
      seed: of the goldens.
      last_layer: name of the deformation's last layer, which is small, as is that of
        the anchors.
    """
    weights = {}
    for key, shape in shapes.items():
        rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
        values = rng.standard_normal(shape)
        small = key.startswith(("id.mlp_pos.4", last_layer))
        if key.endswith("bias"):
            values *= 0.01 if small else 0.1
        else:
            values *= (0.1 if small else np.sqrt(2)) / np.sqrt(shape[-1])
        weights[key] = values.astype(np.float32)
    return weights


def weights_digest(weights: Mapping[str, np.ndarray]) -> str:
    """sha256 over sorted names and float32 bytes."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        digest.update(key.encode())
        digest.update(np.ascontiguousarray(weights[key], np.float32).tobytes())
    return digest.hexdigest()


def check_weights(
    golden: Golden, weights: Mapping[str, np.ndarray], tally: Tally
) -> None:
    """Compares weights by the recipe with what a golden says of its own."""
    group = "weights by the recipe"
    digest = weights_digest(weights)
    tally.same(group, "weights_sha256", digest == str(golden["weights_sha256"]))
    for key, spot in golden.under("spot/").items():
        if key not in weights:
            tally.same(group, f"spot/{key}", False)
            continue
        flat = weights[key].astype(np.float64).reshape(-1)
        ours = [flat[0], flat[-1], flat.sum()]
        tally.relative(f"{group}, spots", key, ours, spot, 1e-6)
    path = golden.companion("_weights.npz")
    if path.exists():
        stored = Golden(path).under("")
        tally.same("weights file", "names", stored.keys() == weights.keys())
        for key in stored.keys() & weights.keys():
            tally.same("weights file", key, np.array_equal(stored[key], weights[key]))


def list_unread(golden: Golden, tally: Tally) -> None:
    """Enters entries that no comparison has asked for: nothing is left out silently."""
    if golden.unread:
        tally.not_checked.append(summarize(golden.unread))


def summarize(keys: Iterable[str]) -> str:
    """Names of entries, those of one folder together."""
    folders: dict[str, list[str]] = {}
    for key in sorted(keys):
        folder, _, name = key.rpartition("/")
        folders.setdefault(folder, []).append(name)
    return "; ".join(
        f"{folder}/{{{', '.join(names)}}}" if folder else ", ".join(names)
        for folder, names in folders.items()
    )
