from .app.library import distill as distill
from .app.library import load as load
from .app.library import load_prior as load_prior
from .app.library import open_capture as open_capture
from .app.library import track as track
from .app.train_avatar import train as train
from .avatar import Avatar as Avatar
from .avatar import DensityControl as DensityControl
from .avatar import Forward as Forward
from .avatar import LossTerm as LossTerm
from .avatar import Method as Method
from .avatar import Network as Network
from .avatar import StepView as StepView
from .core import InputError as InputError
from .data import CaptureConfig as CaptureConfig
from .rasterizer import rasterization as rasterization
from .training import PRESETS as PRESETS
from .training import TrainConfig as TrainConfig
from .training import default_method as default_method

__version__: str
