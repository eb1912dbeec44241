"""Every test runs on the CPU, and leaves nothing in the user's caches.

The variables are set before JAX is imported, and scripts that tests start inherit
them. Both compile with the same settings: what one process has compiled, the next one
finds on disk. XLA's older emitters of loops compile a rasterizer in a third of the time
that its newer ones take.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from npga_jax.core import runtime
from tests.synthetic_capture import SyntheticCapture, write_capture

_PROGRAMS = "NPGA_TEST_PROGRAMS"
"""Names a folder of compiled programs to be kept from one test run to the next."""

_caches = Path(tempfile.mkdtemp(prefix="npga_jax_tests_"))
# Workers inherit the variables: what one of them has compiled, the others find.
_programs = os.environ.setdefault(_PROGRAMS, str(_caches / "xla"))
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(_programs).parent / "numba"))

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["NPGA_CACHE"] = str(_caches / "npga")
os.environ["JAX_COMPILATION_CACHE_DIR"] = _programs
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # Small ones as well.
if metadata.version("jax").startswith("0.10."):  # Later ones have no older emitters.
    os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"
os.environ.pop("NPGA_DATA", None)
runtime.configure()


def pytest_unconfigure() -> None:
    """Removes the caches."""
    shutil.rmtree(_caches, ignore_errors=True)


@pytest.fixture(scope="session")
def tiny_capture(tmp_path_factory: pytest.TempPathFactory) -> SyntheticCapture:
    """Ground truth of a capture of 32 x 48 pixels on disk; do not change its files."""
    return write_capture(tmp_path_factory.mktemp("data"), num_points=60)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> SyntheticCapture:
    """The ground truth of a capture on disk; do not change its files."""
    return write_capture(tmp_path_factory.mktemp("captures"))


@pytest.fixture
def damaged(written: SyntheticCapture, tmp_path: Path) -> Path:
    """A data root with a copy of subject 074 that a test may damage."""
    root = tmp_path / "root"
    shutil.copytree(written.folder, root / written.subject)
    return root


@pytest.fixture
def own_signals() -> Iterator[None]:
    """Python's own handlers: a suite in the background is started to ignore Ctrl-C."""
    own = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in own.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def tiny_run(tiny_capture: SyntheticCapture, tmp_path_factory: pytest.TempPathFactory):
    """A run of a few steps on the tiny capture, opened; do not change its folder."""
    import npga_jax
    from npga_jax.avatar.settings import DetailConfig, GaussianConfig
    from npga_jax.data.settings import CaptureConfig
    from npga_jax.training.settings import DensityConfig, TrainConfig

    return npga_jax.train(
        TrainConfig(
            subject=tiny_capture.subject,
            data_root=tiny_capture.root,
            output=tmp_path_factory.mktemp("runs") / "tiny",
            steps=6,
            evaluate=False,
            capture=CaptureConfig(width=32, driving="blendshapes"),
            gaussians=GaussianConfig(capacity=64, feature_dim=4),
            detail=DetailConfig(hidden=8, layers=2),
            density=DensityConfig(events=1, views=2),
        )
    )
