"""Sizes of a head model: what its networks look like, without any array."""

import dataclasses
from typing import Any

from npga_jax.core import InputError

METRES_PER_UNIT = 0.25
"""NPHM space is FLAME's space, metres, times 4."""

MILLIMETRES_PER_UNIT = 1000 * METRES_PER_UNIT

BLEND_NEIGHBORS = 8
"""The nearest anchors whose greatest distance sets the width of the blending, whatever
`num_neighbors` is (MonoNPHM has this slice hard coded)."""

EXTRA_DISTANCE = 0.75
"""Distance that blending takes for the extra, non-local network."""


@dataclasses.dataclass(frozen=True)
class NPHMConfig:
    """Sizes of the MonoNPHM networks; the defaults are the official ones."""

    num_anchors: int = 65
    num_symm_pairs: int = 30
    """The first 2 * num_symm_pairs anchors are mirror pairs (2i, 2i + 1)."""
    num_neighbors: int = 12
    blend_std: float = 3.75
    lat_dim_glob: int = 64
    lat_dim_loc_geo: int = 32
    lat_dim_loc_app: int = 32
    lat_dim_exp: int = 100
    lat_dim_id: int = 16
    """Width that the identity is compressed to for the deformation."""
    num_hyper: int = 2
    """Hyper coordinates: extra canonical dimensions that the deformation adds."""
    hidden_dim_geo: int = 200
    num_layers_geo: int = 4
    hidden_dim_app: int = 200
    """0 for a model without colour."""
    num_layers_app: int = 4
    hidden_dim_exp: int = 400
    num_layers_exp: int = 6
    hidden_dim_pos: int = 64
    bottleneck_dim: int = 16

    @property
    def num_sources(self) -> int:
        """Local networks that a point may be evaluated by: anchors and the extra."""
        return self.num_anchors + 1

    @property
    def num_types(self) -> int:
        """Distinct networks: the members of a mirror pair share theirs."""
        return self.num_anchors - self.num_symm_pairs + 1

    @property
    def num_edges(self) -> int:
        """Networks evaluated per point: the nearest anchors' and the extra one."""
        return self.num_neighbors + 1

    @property
    def lat_dim_geo(self) -> int:
        """Width of the identity's code."""
        return self.lat_dim_glob + self.num_sources * self.lat_dim_loc_geo

    @property
    def lat_dim_app(self) -> int:
        """Width of the appearance's code; 0 without colour."""
        if not self.has_color:
            return 0
        return self.lat_dim_glob + self.num_sources * self.lat_dim_loc_app

    @property
    def has_color(self) -> bool:
        """Whether the model says what colour points have."""
        return self.hidden_dim_app > 0

    @property
    def query_dim(self) -> int:
        """Width of a canonical query: position and hyper coordinates."""
        return 3 + self.num_hyper


def config_from_official(official: dict[str, Any]) -> NPHMConfig:
    """Reads MonoNPHM's `configs.yaml`, already parsed.

    Raises:
      InputError: a setting is missing, or describes a network that is not supported.
    """
    try:
        decoder = official["decoder"]
        identity, expression = decoder["id"], decoder["ex"]
        if expression["mode"] != "compress":
            raise InputError(
                f"the deformation mode of the configuration is {expression['mode']!r}; "
                "expected 'compress', the published model's. (The ablation with one "
                "network for the whole head, 'glob_only', is not supported.)"
            )
        ensemble = identity["gnn"]
        if ensemble.get("nfreq_bands_geo", 0) or ensemble.get("nfreq_bands_app", 0):
            raise InputError(
                "the configuration asks for positional encoding (nfreq_bands), which "
                "no published MonoNPHM has; it is not supported."
            )
        return NPHMConfig(
            num_anchors=int(decoder.get("decoder_nloc", identity.get("nloc", 65))),
            num_symm_pairs=int(identity.get("nsymm_pairs", 30)),
            num_neighbors=int(identity["nneigh"]),
            blend_std=float(identity["blend_std"]),
            lat_dim_glob=int(identity["lat_dim_glob"]),
            lat_dim_loc_geo=int(identity["lat_dim_loc_geo"]),
            lat_dim_loc_app=int(identity["lat_dim_loc_app"]),
            hidden_dim_geo=int(ensemble["hidden_dim_geo"]),
            num_layers_geo=int(ensemble["nlayers_geo"]),
            hidden_dim_app=int(ensemble["hidden_dim_app"]),
            num_layers_app=int(ensemble["nlayers_app"]),
            lat_dim_exp=int(expression["lat_dim_ex"]),
            lat_dim_id=int(expression["lat_dim_id"]),
            num_hyper=int(expression.get("nhyper", 2)),
            hidden_dim_exp=int(expression["hidden_dim"]),
            num_layers_exp=int(expression["nlayers"]),
        )
    except KeyError as error:
        raise InputError(
            f"the configuration has no entry {error}; expected the layout of "
            "MonoNPHM's configs.yaml (decoder: id, ex)."
        ) from None
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"the configuration cannot be read ({error}); expected the layout of "
            "MonoNPHM's configs.yaml."
        ) from None
