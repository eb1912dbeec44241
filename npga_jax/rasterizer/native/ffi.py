"""Compiles the handlers when they are first wanted, and tells XLA about them."""

import functools
import hashlib
import os
import re
import sys
import warnings
from pathlib import Path

import jax

from npga_jax.core import cache_root

TARGET = "npga_jax_composite"


@functools.cache
def unavailable() -> str:
    """Why there are no handlers, or an empty string once they are registered."""
    if os.environ.get("NPGA_NATIVE", "1") == "0":
        return "NPGA_NATIVE is 0"
    if sys.platform not in ("linux", "darwin"):
        return f"not tried on {sys.platform}"
    try:
        import numba
        from llvmlite import binding
    except ImportError as error:
        return f"numba cannot be imported: {error}"
    if dict(binding.get_host_cpu_features()).get("fma") is False:
        return "the processor has no fused multiply-add"
    try:
        _register(numba)
    except Exception as error:  # Whatever it is, there is another way.
        warnings.warn(f"No native renderer: {error}", stacklevel=2)
        return str(error)
    return ""


def _register(numba):
    from npga_jax.rasterizer.native import frame

    if not _speaks(frame.API_VERSION):
        raise RuntimeError("XLA's FFI has another version")
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
    found = [
        re.search(rf"#define XLA_FFI_API_{part} (\d+)", text)
        for part in ("MAJOR", "MINOR")
    ]
    if not all(found):
        return False
    major, minor = (int(match[1]) for match in found)
    return major == version[0] and minor >= version[1]
