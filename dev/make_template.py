"""Writes the labelled head template that ships with the package."""

import dataclasses
from pathlib import Path

import numpy as np

from npga_jax.app import cli
from npga_jax.core import atomic_write


@dataclasses.dataclass(frozen=True)
class MakeTemplateConfig:
    """Make npga_jax/tracking/template.npz from ICT-FaceKit."""

    scans: Path
    """ICT-FaceKit's .npz."""
    output: Path = Path("npga_jax/tracking/template.npz")
    """Where it goes."""


def main(cfg: MakeTemplateConfig) -> None:
    from npga_jax.prior import ict_template, load_ict

    template = ict_template(load_ict(cfg.scans))
    with atomic_write(cfg.output) as file:
        np.savez_compressed(
            file,
            vertices=template.vertices.astype(np.float16),
            faces=template.faces.astype(np.uint16),
            labels=template.labels,
            rims=np.concatenate(template.rims).astype(np.uint16),
            rim_sizes=np.array([len(rim) for rim in template.rims], np.uint16),
            rim_labels=template.rim_labels,
            bulges=template.bulges,
            leaders=template.leaders.astype(np.uint16),
            guides=template.guides.astype(np.uint16),
        )
    size = cfg.output.stat().st_size / 1024
    print(f"{len(template.vertices)} vertices, {size:.0f} KiB: {cfg.output}")


if __name__ == "__main__":
    cli.run(main, MakeTemplateConfig)
