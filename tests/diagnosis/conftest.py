"""One moment of the packaged demo capture, as it is, and with fewer cameras."""

from pathlib import Path

import pytest

from npga_jax.data.capture import Capture
from npga_jax.data.opening import open_capture
from npga_jax.data.settings import CaptureConfig
from npga_jax.diagnosis.view import Scene, look_at_moment
from tests.diagnosis.wrong import cropped

CAMERAS = (0, 2, 4, 7)  # From one end of the arc to the other.


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    """The demo capture; nothing of it is decoded but what is read."""
    cfg = CaptureConfig(cache_dir=Path(tmp_path_factory.mktemp("cache")))
    return open_capture("demo", None, cfg, progress=False, decode=False)


@pytest.fixture(scope="session")
def moment(demo: Capture) -> Scene:
    """Its first moment."""
    return look_at_moment(demo)


@pytest.fixture(scope="session")
def scene(moment: Scene) -> Scene:
    """Four cameras of it whose principal points are off the centre."""
    views = tuple(moment.views[i] for i in CAMERAS)
    return cropped(moment._replace(views=views))
