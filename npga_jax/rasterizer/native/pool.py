"""A parallel loop on XLA's own threads.

Numba's threading layers are not safe here: XLA may run several handlers at once, from
threads of its own. Its FFI lets a handler hand tasks to the pool of threads that runs
all its computations, but promises nothing about when they run: with every thread inside
a handler, never. So the caller takes part and waits only for tasks that have begun. One
that comes too late finds nothing left; the last to leave frees the shared job.
"""

from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic

from npga_jax.rasterizer.native.memory import (
    allocate,
    atomic_add,
    atomic_load,
    call,
    free,
    load_i64,
    store_i64,
)

# The job: its counters, what to do, and the arguments of the calls into XLA.
_NEXT, _ACTIVE, _OWNERS, _TOTAL, _KIND, _PARAMS, _ARGUMENTS = range(0, 56, 8)
_JOB_BYTES = _ARGUMENTS + 64

# Offsets in XLA's C structs (xla/ffi/api/c_api.h, version 0.3).
_FRAME_API, _FRAME_CONTEXT = 16, 24
_API_DESTROY_ERROR, _API_SCHEDULE, _API_NUM_THREADS = 64, 136, 144


def make_parallel_for(run_item):
    """Compiles the loop `for i in range(total): run_item(kind, params, i)`.

    Args:
      run_item: numba function of three int64.

    Returns:
      `parallel_for(frame, kind, params, total)` for handlers with an XLA call frame;
      False where memory ran out.
    """

    @njit(error_model="numpy")
    def work(job):
        atomic_add(job + _ACTIVE, 1)
        total, kind = load_i64(job + _TOTAL), load_i64(job + _KIND)
        params = load_i64(job + _PARAMS)
        item = atomic_add(job + _NEXT, 1)
        while item < total:
            run_item(kind, params, item)
            item = atomic_add(job + _NEXT, 1)
        atomic_add(job + _ACTIVE, -1)

    @njit(error_model="numpy")
    def leave(job, owners):
        if atomic_add(job + _OWNERS, -owners) == owners:
            free(job)

    def task(job):
        work(job)
        leave(job, 1)

    @intrinsic
    def task_address(typingctx):
        """Address of `task` with the C signature that XLA calls."""

        def codegen(context, builder, sig, args):
            int64 = ir.IntType(64)
            function = ir.Function(
                builder.module,
                ir.FunctionType(ir.VoidType(), [int64]),
                builder.module.get_unique_name("npga_pool_task"),
            )
            function.linkage = "internal"
            inner = ir.IRBuilder(function.append_basic_block())
            task_sig = types.none(types.int64)
            compiled = context.compile_subroutine(builder, task, task_sig)
            context.call_internal_no_propagate(
                inner, compiled.fndesc, task_sig, function.args
            )
            inner.ret_void()
            return builder.ptrtoint(function, int64)

        return types.int64(), codegen

    @njit(error_model="numpy")
    def parallel_for(frame, kind, params, total):
        job = allocate(_JOB_BYTES)
        if job == 0:
            return False
        api, context = load_i64(frame + _FRAME_API), load_i64(frame + _FRAME_CONTEXT)
        destroy_error = load_i64(api + _API_DESTROY_ERROR)
        arguments = job + _ARGUMENTS
        store_i64(arguments, 32)
        store_i64(arguments + 8, 0)
        store_i64(arguments + 16, context)
        store_i64(arguments + 24, arguments + 32)
        store_i64(arguments + 32, 1)
        error = call(load_i64(api + _API_NUM_THREADS), arguments)
        helpers = min(load_i64(arguments + 32), total) - 1
        if error != 0:
            # A client without a pool: the caller works alone.
            helpers = 0
            store_i64(arguments, 24)
            store_i64(arguments + 16, error)
            call(destroy_error, arguments)
        helpers = max(helpers, 0)

        store_i64(job + _NEXT, 0)
        store_i64(job + _ACTIVE, 0)
        store_i64(job + _OWNERS, helpers + 1)
        store_i64(job + _TOTAL, total)
        store_i64(job + _KIND, kind)
        store_i64(job + _PARAMS, params)
        absent = 0
        for _ in range(helpers):
            store_i64(arguments, 40)
            store_i64(arguments + 8, 0)
            store_i64(arguments + 16, context)
            store_i64(arguments + 24, task_address())
            store_i64(arguments + 32, job)
            error = call(load_i64(api + _API_SCHEDULE), arguments)
            if error != 0:
                absent += 1
                store_i64(arguments, 24)
                store_i64(arguments + 16, error)
                call(destroy_error, arguments)
        work(job)
        while atomic_load(job + _ACTIVE) > 0:
            pass
        leave(job, absent + 1)
        return True

    return parallel_for
