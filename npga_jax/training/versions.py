"""Settings of earlier versions, brought up to today's.

What a version did not know, it did in one way: that way is filled in, and not today's
default. A new option therefore enters `ADDED` with the value that says "as before".
"""

from typing import Any

from npga_jax.core import InputError

VERSION = 3
"""Of the settings. 1: up to commit 7576d97, which wrote no version; 2: before other
layouts than NeRSemble's were read."""

ADDED: dict[int, dict[str, Any]] = {
    2: {"method": None, "capture.mattes": True},
    3: {
        "capture.layout": "nersemble",
        "capture.principal_point": "bottom",
        "capture.world_unit": 1.0,
    },
}
"""By the version that brought them: options, and what was done before."""


def upgraded(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as today's version writes them, without their version.

    Args:
      settings: what a run's config.json or an avatar holds.

    Raises:
      InputError: they are of a later version, or of what is no longer there.
    """
    settings = {k: dict(v) if isinstance(v, dict) else v for k, v in settings.items()}
    version = settings.pop("version", 1)
    if not isinstance(version, int) or version > VERSION:
        raise InputError(
            f"the settings are of version {version}, and this program knows versions "
            f"up to {VERSION}; use a later npga_jax."
        )
    if version < 2:
        _from_version_1(settings)
    for later in range(version + 1, VERSION + 1):
        for name, value in ADDED.get(later, {}).items():
            group, _, field = name.rpartition(".")
            target = settings[group] if group else settings
            target.setdefault(field, value)
    return settings


def _from_version_1(settings: dict[str, Any]) -> None:
    """G's step size and residual beside F were options of F."""
    forward, detail = settings["forward"], settings["detail"]
    beside = {
        ("optim", "detail"): forward.pop("detail_rate"),
        ("loss", "residual"): forward.pop("detail_residual"),
    }
    if forward["source"] != "none":
        for (group, field), value in beside.items():
            settings[group] = {**settings[group], field: value}
    if detail.pop("symmetric"):
        raise InputError(
            "the run was made with --detail.symmetric, which is no longer there; use "
            "the version that made it."
        )
