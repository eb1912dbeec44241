"""Settings of a prior's training."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from npga_jax.core import Range, option_from_argv
from npga_jax.nphm import NPHMConfig

_MOST = 10**9
"""Of anything that is counted."""
_COUNT = Range(1, _MOST)


@dataclasses.dataclass(frozen=True)
class PriorConfig:
    """Train a neural parametric head model on registered scans."""

    scans: Path
    """ICT-FaceKit's .npz, or a folder of registered meshes (docs/head-model.md)."""
    preset: Literal["quick", "default"] = "default"
    """quick: a sane head within 15 minutes on two cores. default: what ships in the
    package."""
    output: Path = Path("runs/prior")
    """Run folder: checkpoints, metrics, pictures, and at the end prior.npz."""
    resume: bool = False
    """Go on from the newest checkpoint in the output folder."""
    steps: Annotated[int, _COUNT] = 6000
    """Optimisation steps."""
    scans_per_step: Annotated[int, _COUNT] = 16
    """Scans in a batch."""
    identities: Annotated[int, Range(2, _MOST)] = 768
    """People drawn from a morphable model."""
    expressions: Annotated[int, _COUNT] = 8
    """Expressions drawn for each of them."""
    hidden_geo: Annotated[int, _COUNT] = 48
    """Width of the local geometry networks."""
    layers_geo: Annotated[int, _COUNT] = 3
    """Hidden layers of the local geometry networks."""
    hidden_exp: Annotated[int, _COUNT] = 160
    """Width of the deformation network."""
    code_noise: float = 0.1
    """Noise on codes, in their standard deviations: heads beside those of the training
    are to be heads too."""
    rate: Annotated[float, Range(0, 1, is_open=True)] = 2e-3
    """Step size of the networks at the start."""
    log_every: Annotated[int, _COUNT] = 50
    """Steps between lines of metrics.jsonl."""
    save_every: Annotated[int, _COUNT] = 500
    """Steps between checkpoints."""
    validation_scans: Annotated[int, Range(0, _MOST)] = 4
    """Held-out scans that are fitted and drawn at the end."""
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    """Draws people, expressions, first weights and points."""

    def network(self) -> NPHMConfig:
        """Sizes of the networks."""
        return NPHMConfig(
            num_anchors=65,
            num_symm_pairs=28,
            num_neighbors=8,
            lat_dim_glob=32,
            lat_dim_loc_geo=8,
            lat_dim_loc_app=8,
            lat_dim_exp=48,
            lat_dim_id=16,
            hidden_dim_geo=self.hidden_geo,
            num_layers_geo=self.layers_geo,
            hidden_dim_app=0,
            hidden_dim_exp=self.hidden_exp,
        )


QUICK: dict[str, Any] = {"steps": 1500, "identities": 256}


def defaults_from_argv(argv: list[str] | None = None) -> PriorConfig:
    """Finds `--preset` before parsing: it chooses the defaults."""
    argv = sys.argv[1:] if argv is None else argv
    is_quick = option_from_argv("--preset", argv) == "quick"
    return PriorConfig(scans=tyro.MISSING, **(QUICK if is_quick else {}))
