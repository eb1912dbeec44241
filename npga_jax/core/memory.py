"""What a program asks for against what there is: said before it runs, not after.

A process that asks an operating system for more memory than there is gets killed
without a word.
"""

from pathlib import Path
from typing import Any

import jax
import psutil

from npga_jax.core.errors import InputError

_CGROUP = Path("/sys/fs/cgroup")
_OVERHEAD_BYTES = 2**28
"""Of a process that computes: libraries, threads, what is being decoded."""


# jaxlib has no types of its C++ classes, to which `jax.Device` belongs.
def available_bytes(
    device: jax.Device,  # pyright: ignore[reportInvalidTypeForm]
) -> int | None:
    """Memory that a device can still give; None where it does not say.

    A CPU's is the machine's, or what its container is allowed, whichever is less.
    """
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        if "bytes_limit" not in stats:
            return None
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    rooms = [psutil.virtual_memory().available, _container_room()]
    return max(0, min(room for room in rooms if room is not None) - _OVERHEAD_BYTES)


def program_bytes(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Bytes that a compiled program needs, by kind, and their "total".

    What is donated ("alias") is both argument and output, but is there once.
    """
    memory = compiled.memory_analysis()
    kinds = ("argument", "output", "alias", "temp", "generated_code")
    sizes = {kind: getattr(memory, f"{kind}_size_in_bytes") for kind in kinds}
    return {**sizes, "total": sum(sizes.values()) - 2 * sizes["alias"]}


def check_room(needed: int, what: str, advice: str) -> None:
    """Compares with what the first device has left.

    Args:
      needed: bytes, beside those that are in use.
      what: needs them, as the beginning of a sentence.
      advice: what the user can do, as a sentence.

    Raises:
      InputError: if it is more.
    """
    available = available_bytes(jax.local_devices()[0])
    if available is not None and needed > available:
        raise InputError(
            f"{what} needs {_gib(needed)} GiB of memory, and {_gib(available)} GiB are "
            f"left. {advice}"
        )


def check_program(compiled: jax.stages.Compiled, what: str, advice: str) -> None:
    """`check_room` for a program whose arguments are there already."""
    sizes = program_bytes(compiled)
    check_room(sizes["total"] - sizes["argument"], what, advice)


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether an allocation has failed, of the host or of a device."""
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, jax.errors.JaxRuntimeError)
        and ("RESOURCE_EXHAUSTED" in text or "Out of memory" in text)
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f}"


def _container_room() -> int | None:
    """Bytes that the control group leaves, as containers limit them."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        stat: Any = (_CGROUP / "memory.stat").read_text().split()
        # Files that the kernel keeps in memory are given up when it is short.
        cached = int(dict(zip(stat[::2], stat[1::2], strict=True))["inactive_file"])
    except (OSError, ValueError, KeyError):
        return None
    return None if limit == "max" else int(limit) - used + cached
