"""Compiles the handlers when they are first wanted, and tells XLA about them."""

import functools
import hashlib
import re
import sys
from pathlib import Path

import jax

from npga_jax.core import cache_root

TARGET = "npga_jax_composite"


@functools.cache
def unavailable() -> str:
    """Why there are no handlers, or an empty string once they are registered."""
    if sys.platform not in ("linux", "darwin"):
        return f"the native code was never tried on {sys.platform}"
    try:
        import numba
        from llvmlite import binding
    except ImportError as error:
        return f"numba cannot be imported ({error}); pip install numba"
    if dict(binding.get_host_cpu_features()).get("fma") is False:
        return "the processor has no fused multiply-add"
    try:
        _register(numba)
    except Exception as error:  # Whatever it is, there is another way.
        said = " ".join(str(error).split()) or type(error).__name__
        return f"the native code cannot be compiled here ({said})"
    return ""


def _register(numba):
    from npga_jax.rasterizer.native import frame

    if not _speaks(frame.API_VERSION):
        raise RuntimeError(f"the FFI of JAX {jax.__version__} is another one")
    handlers = _compiled(numba)
    capsule = jax.ffi.pycapsule(handlers.composite.ctypes)
    jax.ffi.register_ffi_target(TARGET, capsule, platform="cpu")


def _compiled(numba):
    """The module of handlers, compiled or from the cache on disk.

    Numba's cache notices changes only of the file that holds the handlers, hence a
    folder for each state of all of them.
    """
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources))
    before = numba.config.CACHE_DIR
    root = Path(before) if before else cache_root().resolve() / "numba"
    numba.config.CACHE_DIR = str(root / digest.hexdigest()[:16])
    try:
        from npga_jax.rasterizer.native import handlers
    finally:
        numba.config.CACHE_DIR = before
    return handlers


def _speaks(version: tuple[int, int]) -> bool:
    """Whether this XLA's headers have the major version, and no older minor one."""
    header = Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    try:
        text = header.read_text()
    except OSError:
        return False
    major, minor = (
        re.findall(rf"#define XLA_FFI_API_{part} (\d+)", text)
        for part in ("MAJOR", "MINOR")
    )
    if not (major and minor):
        return False
    return int(major[0]) == version[0] and int(minor[0]) >= version[1]
