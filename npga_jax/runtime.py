"""Process-wide settings of JAX, to be made before it is first used."""

import os
from pathlib import Path


def cache_root() -> Path:
    """Folder for everything that can be made anew: $NPGA_CACHE or the user's cache."""
    return Path(os.environ.get("NPGA_CACHE", "~/.cache/npga_jax")).expanduser()


def use_wide_vectors() -> None:
    """Lets XLA's CPU code use 512-bit vectors where the machine has them."""
    flag = "--xla_cpu_prefer_vector_width"
    flags = os.environ.get("XLA_FLAGS", "")
    if flag not in flags and _has_avx512():
        os.environ["XLA_FLAGS"] = f"{flags} {flag}=512".strip()


def _has_avx512() -> bool:
    try:
        return "avx512f" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that the second start is quick."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        folder = cache_root() / "xla"
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def configure() -> None:
    """All of the above: the first line of every script."""
    use_wide_vectors()
    use_compilation_cache()
