"""Opens whatever a prior can be trained on."""

import numpy as np

from npga_jax.core import InputError
from npga_jax.prior.ict import ict_scans, load_ict
from npga_jax.prior.mesh_folder import load_mesh_folder
from npga_jax.prior.scans import RegisteredScans
from npga_jax.prior.settings import PriorConfig
from npga_jax.prior.validation import select_people

_HELD_OUT_SEED = 90_001
_HELD_OUT_PEOPLE = 4


def load_scans(
    settings: PriorConfig,
) -> tuple[RegisteredScans, RegisteredScans | None]:
    """The training scans that the settings ask for, and people held out from it.

    From a morphable model other people are drawn. Of a folder, one person in ten is
    held out; None if there are too few to spare one.

    Raises:
      InputError: there is nothing there, or it cannot be used.
    """
    path = settings.scans
    if not path.exists():
        raise InputError(
            f"there are no scans at {path}; give ICT-FaceKit's .npz or a folder of "
            "registered meshes with --scans."
        )
    if path.is_dir():
        everyone = load_mesh_folder(path)
        people = np.arange(everyone.num_identities)
        held = people[9::10]
        if not len(held):
            return everyone, None
        rest = np.setdiff1d(people, held)
        return select_people(everyone, rest), select_people(everyone, held)
    model = load_ict(path)
    return (
        ict_scans(
            model,
            num_identities=settings.identities,
            expressions_per_identity=settings.expressions,
            seed=settings.seed,
        ),
        ict_scans(
            model,
            num_identities=_HELD_OUT_PEOPLE,
            expressions_per_identity=1,
            seed=settings.seed + _HELD_OUT_SEED,
        ),
    )
