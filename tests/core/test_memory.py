"""Programs that need more than there is are refused before they run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from npga_jax.core import memory
from npga_jax.core.errors import InputError


def test_a_program_needs_its_temporaries_and_results():
    x = np.zeros((256, 1024), np.float32)

    def product(x):
        return jnp.sin(x) @ jnp.cos(x).T

    sizes = memory.program_bytes(jax.jit(product).lower(x).compile())
    assert sizes["argument"] == x.nbytes
    assert sizes["output"] == 256 * 256 * 4
    assert sizes["total"] >= sizes["argument"] + sizes["output"] + x.nbytes


def test_what_is_donated_is_counted_once():
    x = np.zeros(1024, np.float32)
    jitted = jax.jit(lambda x: x + 1, donate_argnums=0)
    sizes = memory.program_bytes(jitted.lower(x).compile())
    assert sizes["alias"] == x.nbytes
    assert x.nbytes <= sizes["total"] < 2 * x.nbytes


def test_a_program_that_has_no_room_is_refused_with_both_numbers(monkeypatch):
    x = np.zeros((1024, 1024, 256), np.float32)
    compiled = jax.jit(lambda x: x + 1).lower(x).compile()
    monkeypatch.setattr(memory, "available_bytes", lambda device: 2 * x.nbytes)
    memory.check_program(compiled, "it", "Lower it.")
    monkeypatch.setattr(memory, "available_bytes", lambda device: x.nbytes // 2)
    with pytest.raises(InputError) as error:
        memory.check_program(compiled, "it", "Lower it.")
    expected = "it needs 1.0 GiB of memory, and 0.5 GiB are left. Lower it."
    assert str(error.value) == expected


def test_a_cpu_has_what_the_machine_or_its_container_leaves(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    (device,) = jax.local_devices()[:1]
    of_machine = memory.available_bytes(device)
    assert 0 < of_machine < memory.psutil.virtual_memory().total
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text(f"{2**30}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {2**29}\n")
    assert memory.available_bytes(device) == pytest.approx(of_machine, rel=0.2)
    (tmp_path / "memory.max").write_text(f"{2**30 + 2**28}\n")
    limited = memory.available_bytes(device)
    assert limited == 2**28 + 2**29 - memory._OVERHEAD_BYTES


def test_an_accelerator_says_itself():
    class Device:
        platform = "gpu"

        def __init__(self, **stats):
            self.memory_stats = lambda: stats or None

    assert memory.available_bytes(Device()) is None
    assert memory.available_bytes(Device(bytes_limit=10, bytes_in_use=3)) == 7


def test_failed_allocations_are_told_from_other_errors():
    lack = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")
    assert memory.is_lack_of_memory(lack)
    assert memory.is_lack_of_memory(MemoryError())
    assert not memory.is_lack_of_memory(ValueError("Out of memory"))
    assert not memory.is_lack_of_memory(jax.errors.JaxRuntimeError("INTERNAL: x"))
