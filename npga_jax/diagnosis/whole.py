"""All diagnoses of a capture, of whatever layout."""

from npga_jax.data import Capture
from npga_jax.diagnosis.findings import Diagnosis
from npga_jax.diagnosis.scene import diagnose_scene
from npga_jax.diagnosis.sequences import diagnose_held_out
from npga_jax.diagnosis.view import look_at_moment


def diagnose(capture: Capture) -> list[Diagnosis]:
    """Looks for what is wrong with a capture, and says what mends it.

    Reads one frame of every camera, and the first frames of one camera; more only of
    sequences that begin alike.

    Raises:
      InputError: if a file cannot be read.
    """
    return diagnose_scene(look_at_moment(capture)) + diagnose_held_out(capture)
