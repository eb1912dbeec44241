"""Converts MonoNPHM's checkpoint: `python experiments/convert_prior.py --help`."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

from npga_jax.app import cli
from npga_jax.core import InputError, runtime


@dataclasses.dataclass(frozen=True)
class ConvertConfig:
    """Convert an official MonoNPHM checkpoint to one .npz, once."""

    checkpoint: Path
    """checkpoint_epoch_*.tar, or a folder that holds it: the highest epoch is taken."""
    output: Path
    """The .npz to write."""
    anchors: Path | None = None
    """The mean anchors, assets/anchors_65.npy of the MonoNPHM repository; default: a
    file of that name beside the checkpoint."""
    config: Path | None = None
    """MonoNPHM's configs.yaml; default: beside the checkpoint or one folder above."""
    dtype: Literal["float32", "float16"] = "float32"
    """How weights are stored; float16 halves the file."""


def main(cfg: ConvertConfig) -> None:
    runtime.configure()
    import jax

    from npga_jax.nphm import load_mononphm, save_head_model

    if cfg.output.suffix != ".npz":
        raise InputError(f"--output {cfg.output} does not end in .npz.")
    official = load_mononphm(cfg.checkpoint, config=cfg.config, anchors=cfg.anchors)
    model = official.model
    sizes = model.cfg
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(model.params))
    print(
        f"read {official.path}: epoch {official.epoch}, a model with "
        f"{sizes.num_anchors} anchors, {count - 3 * sizes.num_anchors:,} parameters; "
        f"codes: geometry {sizes.lat_dim_geo}, appearance {sizes.lat_dim_app}, "
        f"expression {sizes.lat_dim_exp}"
    )
    metadata = {
        "source": "MonoNPHM",
        "file": official.path.name,
        "epoch": official.epoch,
    }
    if official.codebooks is None:
        print("the checkpoint holds no codebooks")
    else:
        tables = ", ".join(f"{k} {v.shape}" for k, v in official.codebooks.items())
        print(f"codebooks are not kept, only their codes' spread: {tables}")
        # Random heads are drawn with it.
        metadata["code_std"] = {
            name: table.std(axis=0).tolist()
            for name, table in official.codebooks.items()
        }
    save_head_model(cfg.output, model, metadata, dtype=cfg.dtype)
    size = cfg.output.stat().st_size
    print(f"wrote {cfg.output}: {size / 1e6:.1f} MB, weights as {cfg.dtype}")


if __name__ == "__main__":
    cli.run(main, ConvertConfig)
