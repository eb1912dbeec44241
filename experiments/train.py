"""Trains an avatar: `python experiments/train.py --subject demo`."""

import sys
from pathlib import Path

from npga_jax.app import cli
from npga_jax.core import option_from_argv
from npga_jax.training import TrainConfig, preset_from_argv, read_config


def main(cfg: TrainConfig) -> None:
    """Codes where they are missing, data, training, evaluation."""
    from npga_jax.app import train

    train(cfg)


def defaults(argv: list[str] | None = None) -> TrainConfig:
    """The preset; or when a run is resumed, that run's own settings."""
    argv = sys.argv[1:] if argv is None else argv
    output = option_from_argv("--output", argv)
    if "--resume" in argv and output:
        return read_config(Path(output))
    return preset_from_argv(argv)


if __name__ == "__main__":
    cli.run(main, TrainConfig, default=defaults)
