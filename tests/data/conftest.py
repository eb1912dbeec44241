"""A tiny capture, written once; tests that damage it get a copy."""

import shutil
from pathlib import Path

import pytest

from npga_jax.data.capture import Capture
from npga_jax.data.opening import open_capture
from npga_jax.data.settings import CaptureConfig
from tests.synthetic_capture import SyntheticCapture, write_capture


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> SyntheticCapture:
    """The ground truth of a capture on disk; do not change its files."""
    return write_capture(tmp_path_factory.mktemp("captures"))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> CaptureConfig:
    """Settings that fit the tiny capture, with a cache that all tests share."""
    return CaptureConfig(width=16, cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def capture(written: SyntheticCapture, small: CaptureConfig) -> Capture:
    """The tiny capture at half resolution."""
    return open_capture(written.subject, written.root, small, progress=False)


@pytest.fixture
def damaged(written: SyntheticCapture, tmp_path: Path) -> Path:
    """A data root with a copy of subject 074 that a test may damage."""
    root = tmp_path / "root"
    shutil.copytree(written.folder, root / written.subject)
    return root


@pytest.fixture
def fresh(tmp_path: Path) -> CaptureConfig:
    """The same settings with an empty cache."""
    return CaptureConfig(width=16, cache_dir=tmp_path / "cache")
