"""Trains a head model: `python experiments/train_prior.py --scans FILE_OR_FOLDER`."""

import dataclasses
import json
from typing import Any

from npga_jax.app import cli
from npga_jax.core import InputError, check_ranges, check_writable, runtime, write_json
from npga_jax.prior import PriorConfig, defaults_from_argv
from npga_jax.training import CONFIG_FILE


def main(cfg: PriorConfig) -> None:
    check_ranges(cfg)
    runtime.configure()
    from npga_jax.nphm import save_head_model
    from npga_jax.prior import head_model, load_scans, prepare, train, validate
    from npga_jax.tracking import open_prior

    folder = cfg.output
    check_folder(cfg)
    scans, held_out = load_scans(cfg)
    print(
        f"{scans.num_identities} people, {scans.num_scans} scans of "
        f"{len(scans.mean)} vertices: {scans.source}"
    )
    setup = prepare(cfg, scans)
    folder.mkdir(parents=True, exist_ok=True)
    if not cfg.resume:
        write_json(folder / CONFIG_FILE, as_stored(cfg))
    state, seconds = train(cfg, scans, setup, folder)
    model = head_model(setup, state)
    path = folder / "prior.npz"
    save_head_model(
        path,
        model,
        {
            "source": scans.source,
            "command": f"python experiments/train_prior.py --scans {cfg.scans.name} "
            f"--preset {cfg.preset}",
            "steps": cfg.steps,
            "seconds": round(seconds),
            "anchor_vertices": setup.anchor_vertices.tolist(),
            "code_std": code_std(state.codes),
        },
    )
    print(f"\ntrained {cfg.steps} steps in {seconds:.0f} s: {path}")
    if held_out is None or not cfg.validation_scans:
        print("not validated: no people were held out")
        return
    fits = validate(open_prior(path), held_out, cfg.validation_scans, folder)
    if not fits:
        print("not validated: the people held out have neutral scans alone")
        return
    print("held-out scan  median mm  95 % mm  normals")
    for fit in fits:
        print(
            f"{fit.scan:13d}  {fit.median_mm:9.3f}  {fit.p95_mm:7.2f}"
            f"  {fit.normal_consistency:7.4f}"
        )
    print(f"pictures of the fits: {folder / 'fits'}")


def code_std(codes) -> dict[str, list[float]]:
    """Deviation of each component of the codes, which fits need to know."""
    return {
        name: [round(float(v), 6) for v in getattr(codes, name).std(axis=0)]
        for name in ("geo", "exp")
    }


def as_stored(cfg: PriorConfig) -> dict[str, Any]:
    """The settings as they come back from JSON."""
    return json.loads(json.dumps(dataclasses.asdict(cfg), default=str))


def check_folder(cfg: PriorConfig) -> None:
    """Neither overwrites another run nor resumes with other settings."""
    stored = cfg.output / CONFIG_FILE
    if not cfg.resume:
        check_writable(cfg.output)
        if stored.exists():
            raise InputError(
                f"{cfg.output} holds a run already; go on with it by --resume, or "
                "choose another folder with --output."
            )
        return
    if not stored.is_file():
        raise InputError(f"{cfg.output} is not a run: there is no {CONFIG_FILE} in it.")
    try:
        old = json.loads(stored.read_text())
        if not isinstance(old, dict):
            raise ValueError("it is not an object")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{stored} cannot be read ({error}); it should be as this command wrote it."
        ) from error
    new = as_stored(cfg)
    free = {"resume", "output", "scans", "log_every", "save_every"}
    free |= {"validation_scans"}
    changed = sorted(k for k in new if k not in free and old.get(k) != new[k])
    if changed:
        raise InputError(
            f"{cfg.output} was begun with other settings of {', '.join(changed)}; "
            f"resume with the ones in its {CONFIG_FILE}."
        )


if __name__ == "__main__":
    cli.run(main, PriorConfig, default=defaults_from_argv)
