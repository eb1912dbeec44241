"""The tiny capture as the reader gives it."""

from pathlib import Path

import pytest

from npga_jax.data.capture import Capture
from npga_jax.data.opening import open_capture
from npga_jax.data.settings import CaptureConfig
from tests.synthetic_capture import SyntheticCapture


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> CaptureConfig:
    """Settings that fit the tiny capture, with a cache that all tests share."""
    return CaptureConfig(width=16, cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def capture(written: SyntheticCapture, small: CaptureConfig) -> Capture:
    """The tiny capture at half resolution."""
    return open_capture(written.subject, written.root, small, progress=False)


@pytest.fixture
def fresh(tmp_path: Path) -> CaptureConfig:
    """The same settings with an empty cache."""
    return CaptureConfig(width=16, cache_dir=tmp_path / "cache")
