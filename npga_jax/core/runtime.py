"""Process-wide settings of JAX, to be made before it is first used."""

import os
from pathlib import Path

from npga_jax.core.errors import InputError
from npga_jax.core.files import cache_root

_MOST_CPU_DEVICES = 64


def use_wide_vectors() -> None:
    """Lets XLA's CPU code use 512-bit vectors where the machine has them."""
    if _has_avx512():
        _add_xla_flag("--xla_cpu_prefer_vector_width", "512")


def _add_xla_flag(name: str, value: str) -> None:
    """Adds a flag, unless the user has set it."""
    flags = os.environ.get("XLA_FLAGS", "")
    if name not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {name}={value}".strip()


def _has_avx512() -> bool:
    try:
        return "avx512f" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that the second start is quick."""
    import jax

    if jax.config.values["jax_compilation_cache_dir"] is None:
        folder = cache_root() / "xla"
        jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def use_cpu_devices(count: int) -> None:
    """Splits the CPU into `count` devices; nothing happens on another platform.

    Each device then computes on one thread. With the shared pool of threads, devices
    that wait for each other in a collective can take the threads that the others need:
    seen as a deadlock on two cores with jax 0.10.2.

    Raises:
      InputError: if they are absurdly many, which hangs.
    """
    import jax

    if count > _MOST_CPU_DEVICES:
        raise InputError(
            f"--num-devices {count}: a CPU is split into {_MOST_CPU_DEVICES} at most; "
            "0 leaves it one device that uses all cores."
        )

    jax.config.update("jax_num_cpu_devices", count)
    _add_xla_flag("--xla_cpu_multi_thread_eigen", "false")


def configure(num_cpu_devices: int = 0) -> None:
    """All of the above, for scripts.

    Args:
      num_cpu_devices: more than 1 splits the CPU; 0 and 1 leave it one device that
        uses all cores.
    """
    use_wide_vectors()
    use_compilation_cache()
    if num_cpu_devices > 1:
        use_cpu_devices(num_cpu_devices)
