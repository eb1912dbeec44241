"""Compares our MonoNPHM with what the official code has computed.

`python dev/check_goldens.py --dir DIR`, for a folder in the format of the
README beside the goldens; exits with 1 if anything is above its tolerance.
"""

import dataclasses
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
from golden_report import Golden, Tally, list_unread

from npga_jax.app import cli
from npga_jax.core import InputError, runtime

_COMPANIONS = {
    r"mono_.*_weights\.npz": "{}.npz",
    r"mono_.*_(configs\.yaml|codebook\.npz)": "{}_checkpoint_epoch_*.tar",
}
"""Files that are read along with another, by the form of that file's name."""

_ELSEWHERE = {
    r"mono_global_.*\.npz": "the ablation with one network for the whole head",
    r"nphm_.*\.npz": "the NPHM of 2023, with its forward deformation",
    r"tracking_.*\.npz": "photometric tracking (volume rendering, image losses)",
}
"""What goldens hold that has no counterpart here, by their names."""


@dataclasses.dataclass(frozen=True)
class CheckGoldensConfig:
    """Compare our head model with the official one, number by number."""

    dir: Path
    """Folder that holds the goldens: mono_*.npz and what is beside them."""


def main(cfg: CheckGoldensConfig) -> None:
    files = find_goldens(cfg.dir)
    runtime.configure()
    failed, lines = [], 0
    for path in files:
        tally = check_file(path)
        print(f"{path.name}", *tally.text(), sep="\n", flush=True)
        lines += len(tally.lines)
        if not tally.passed:
            failed.append(path.name)
    print()
    if failed:
        print(f"FAIL: above tolerance in {', '.join(failed)}")
        sys.exit(1)
    print(f"PASS: {lines} groups of quantities in {len(files)} files")


def find_goldens(folder: Path) -> list[Path]:
    """The files of a folder; all of them, so that none is left out silently.

    Raises:
      InputError: there is no folder, or no golden in it.
    """
    if not folder.is_dir():
        raise InputError(
            f"there is no folder {folder}; give the one that holds the goldens."
        )
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name != "README.md")
    if not any(re.match(r"mono_.*\.npz", p.name) for p in files):
        raise InputError(
            f"{folder} holds no goldens; expected files mono_*.npz, as the "
            "README beside the goldens describes."
        )
    return files


def check_file(path: Path) -> Tally:
    """Compares one file, by what its name says that it is."""
    import golden_checks

    tally = Tally()
    for pattern, form in _COMPANIONS.items():
        if re.fullmatch(pattern, path.name):
            stem = path.name.rsplit("_", 1)[0]
            if any(path.parent.glob(form.format(stem))):
                tally.not_checked.append("read along with the file that it belongs to")
            else:
                tally.not_checked.append("the file that it belongs to is absent")
            return tally
    if re.fullmatch(r"mono_.*_checkpoint_epoch_\d+\.tar", path.name):
        check_checkpoint(path, tally)
        return tally
    for pattern, name in _ELSEWHERE.items():
        if re.fullmatch(pattern, path.name):
            tally.not_checked.append(f"all of it: {name}, not part of this version")
            return tally
    if re.fullmatch(r"mono_.*\.npz", path.name):
        golden = Golden(path)
        golden_checks.check_mono(golden, tally)
        list_unread(golden, tally)
    else:
        tally.not_checked.append("its name says nothing that is known here")
    return tally


def check_checkpoint(path: Path, tally: Tally) -> None:
    """A checkpoint in the official layout: weights, codebooks and the way back."""
    from golden_case import join_states, recipe_states

    from npga_jax.nphm import load_mononphm, official_from_params

    stem, _, epoch = path.stem.rpartition("_checkpoint_epoch_")
    golden = Golden(path.with_name(f"{stem}.npz"))
    with tempfile.TemporaryDirectory() as folder:
        anchors = Path(folder) / "anchors.npy"
        np.save(anchors, golden["anchors_mean"].astype(np.float64))
        config = path.with_name(f"{stem}_configs.yaml")
        loaded = load_mononphm(path, config=config, anchors=anchors)
    sizes, params = loaded.model
    tally.same("checkpoint, epoch", "epoch", loaded.epoch == int(epoch))
    expected = join_states(recipe_states(sizes, int(golden["seed"])))
    found = join_states(official_from_params(params, sizes))
    tally.same(
        "checkpoint, weights there and back", "names", found.keys() == expected.keys()
    )
    for key in expected.keys() & found.keys():
        same = np.array_equal(found[key], expected[key])
        tally.same("checkpoint, weights there and back", key, same)
    codebook = path.with_name(f"{stem}_codebook.npz")
    if not codebook.exists():
        tally.not_checked.append(f"codebooks: there is no {codebook.name}")
        return
    for name, after in Golden(codebook).under("after/").items():
        ours = (loaded.codebooks or {}).get(name)
        same = ours is not None and np.array_equal(ours, after)
        tally.same("checkpoint, codebooks", name, same)
    tally.not_checked.append("its optimizers: training goes on in another form here")


if __name__ == "__main__":
    cli.run(main, CheckGoldensConfig)
