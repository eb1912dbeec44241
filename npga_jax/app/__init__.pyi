from . import cli as cli
from .evaluation import evaluate_run as evaluate_run
from .reenactment import follow_motion as follow_motion
from .reenactment import relative_codes as relative_codes
from .reenactment import smooth_codes as smooth_codes
from .reenactment import there_and_back as there_and_back
