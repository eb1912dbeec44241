"""Opens whatever a prior can be trained on."""

from npga_jax.errors import InputError
from npga_jax.prior.ict import ict_scans, load_ict
from npga_jax.prior.mesh_folder import load_mesh_folder
from npga_jax.prior.scans import RegisteredScans
from npga_jax.prior.settings import PriorConfig


def load_scans(settings: PriorConfig) -> RegisteredScans:
    """The training scans that the settings ask for.

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
        return load_mesh_folder(path)
    return ict_scans(
        load_ict(path),
        num_identities=settings.identities,
        expressions_per_identity=settings.expressions,
        seed=settings.seed,
    )
