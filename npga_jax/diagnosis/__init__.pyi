from .files import diagnose_counts as diagnose_counts
from .files import diagnose_matte_sizes as diagnose_matte_sizes
from .findings import Diagnosis as Diagnosis
from .scene import diagnose_scene as diagnose_scene
from .sequences import diagnose_held_out as diagnose_held_out
from .whole import diagnose as diagnose
