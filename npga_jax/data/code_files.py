"""Which driving codes the sequences of a capture have, and which of them are used.

Codes are never chosen silently: those of different trackers mean different things.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from npga_jax.data.driving import (
    REQUIRED_KEYS,
    TRACKED,
    DrivingFile,
    list_driving_files,
    load_driving,
    tracked_folder,
)
from npga_jax.data.findings import Findings
from npga_jax.data.settings import CaptureConfig

CodeFiles = Mapping[str, Mapping[str, Path]]
"""Driving files by sequence and name."""


def find_code_files(
    folder: Path, sequences: Sequence[str], cache_dir: Path | None
) -> dict[str, dict[str, Path]]:
    """Lists the driving files of every sequence, in the capture and in the cache."""
    return {s: list_driving_files(folder, s, cache_dir) for s in sequences}


def choose_code_files(
    folder: Path,
    files: CodeFiles,
    cfg: CaptureConfig,
    findings: Findings,
    *,
    need_driving: bool = True,
) -> dict[str, Path]:
    """Chooses one driving file for each sequence.

    Args:
      folder: The subject's folder.
      files: What `find_code_files` found.
      cfg: Has the name of the file to use; without one, a sequence's only file is.
      findings: Gets the problems.
      need_driving: False if sequences may be without codes. Without a name, those
        of other trackers then come before our own: it is they who can say where
        the head is before ours has. Where there are several, none is taken.
    """
    chosen: dict[str, Path] = {}
    lacking: list[str] = []
    ambiguous: list[str] = []
    for sequence, found in files.items():
        if cfg.driving:
            found = {n: path for n, path in found.items() if n == cfg.driving}
        elif not need_driving:
            found = {n: path for n, path in found.items() if n != TRACKED} or found
        if len(found) == 1:
            chosen[sequence] = next(iter(found.values()))
        elif found:
            ambiguous.append(sequence)
        elif need_driving:
            lacking.append(sequence)
    if ambiguous and not need_driving:
        names = sorted({n for s in ambiguous for n in files[s]} - {TRACKED})
        findings.notes.append(
            f"{', '.join(ambiguous)}: there are codes of several trackers "
            f"({', '.join(names)}); where the head is, is asked of none of them."
        )
    elif ambiguous:
        findings.problems.append(_say_ambiguous(files, ambiguous))
    if lacking:
        findings.problems.append(_say_lacking(folder, files, cfg, lacking))
    return chosen


def load_tracks(
    paths: Mapping[str, Path], findings: Findings, *, need_driving: bool = True
) -> dict[str, DrivingFile]:
    """Reads the codes of every sequence; all must be of one model.

    Args:
      paths: The chosen files by sequence.
      findings: Gets the problems.
      need_driving: False if codes only say where heads are: then no more than files
        of one name must agree.
    """
    tracks: dict[str, DrivingFile] = {}
    firsts: dict[str, DrivingFile] = {}
    for sequence, path in paths.items():
        track = findings.attempt(load_driving, path)
        if track is None:
            continue
        first = firsts.setdefault("" if need_driving else path.stem, track)
        if (track.model, track.expr_names) != (first.model, first.expr_names):
            findings.problems.append(
                f"{path} has {len(track.expr_names)} codes of model '{track.model}', "
                f"unlike other sequences ({len(first.expr_names)} of "
                f"'{first.model}'). Track all sequences with the same model, or name "
                "one file that all have with --capture.driving NAME."
            )
        tracks[sequence] = track
    return tracks


def _say_ambiguous(files: CodeFiles, sequences: Sequence[str]) -> str:
    names = sorted({name for s in sequences for name in files[s]})
    options = " or ".join(f"--capture.driving {name}" for name in names)
    places = ", ".join(str(path) for path in files[sequences[0]].values())
    return (
        f"there are several driving files to choose from in {', '.join(sequences)} "
        f"({places}). Say which one to use: {options} (for a run that is there "
        "already: capture.driving in its config.json)."
    )


def _say_lacking(
    folder: Path, files: CodeFiles, cfg: CaptureConfig, sequences: Sequence[str]
) -> str:
    first = folder / "sequences" / sequences[0] / "tracking"
    cached = tracked_folder(folder, cfg.cache_dir) / sequences[0] / "tracking"
    what = f"driving file {cfg.driving}.npz" if cfg.driving else "driving codes"
    verb = "has" if len(sequences) == 1 else "have"
    ways = []
    if cfg.driving == "" and len(sequences) < len(files):
        ways.append(
            f"Use our tracker's in all sequences with --capture.driving {TRACKED} "
            "(experiments/track.py makes them)"
        )
    elif cfg.driving in ("", TRACKED):
        ways.append("Make them with experiments/track.py")
    names = sorted({name for found in files.values() for name in found} - {cfg.driving})
    if cfg.driving and names:
        options = " or ".join(f"--capture.driving {name}" for name in names)
        ways.append(f"use others that are there with {options}")
    ways.append(f"supply them from your head tracker (keys {', '.join(REQUIRED_KEYS)})")
    if len(sequences) < len(files):
        ignored = f"--capture.ignore-sequences {' '.join(sequences)}"
        ways.append(f"leave the sequence{'s' * (verb == 'have')} out with {ignored}")
    advice = ", or ".join(ways)
    return (
        f"{', '.join(sequences)} {verb} no {what}: there is no "
        f"{cfg.driving or '*'}.npz in {first} or {cached}. "
        f"{advice[0].upper()}{advice[1:]}."
    )
