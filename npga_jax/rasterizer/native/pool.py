"""A parallel loop on XLA's own threads.

Numba's threading layers are not safe here: XLA may run several handlers at once, from
threads of its own. Its FFI lets a handler hand tasks to the pool of threads that runs
all its computations, but promises nothing about when they run: with every thread inside
a handler, never. So the caller takes part and waits only for tasks that have begun. One
that comes too late finds nothing left; the last to leave frees the shared job.
"""

from llvmlite import ir
from numba.core import types

from npga_jax.rasterizer.native.jit import inner, intrinsic
from npga_jax.rasterizer.native.scratch import (
    allocate,
    atomic_add,
    atomic_load,
    call,
    free,
    has_failed,
    load_i64,
    store_i64,
    yield_core,
)

# The job: its counters, what to do, and the arguments of the calls into XLA.
_NEXT, _ACTIVE, _OWNERS, _TOTAL, _KIND, _PARAMS, _ARGUMENTS = range(0, 56, 8)
_JOB_BYTES = _ARGUMENTS + 64

# Offsets in XLA's C structs (xla/ffi/api/c_api.h, version 0.3).
_FRAME_API, _FRAME_CONTEXT = 16, 24
_API_DESTROY_ERROR, _API_SCHEDULE, _API_NUM_THREADS = 64, 136, 144


def make_task(run_item):
    """The C function that XLA's threads call with a job.

    Args:
      run_item: numba function of three int64: kind, params, item.

    Returns:
      An intrinsic without arguments that gives its address. Only the outermost function
      should use it: whatever does is compiled together with all that `run_item` calls.
    """

    def task(job):
        atomic_add(job + _ACTIVE, 1)
        total, kind = load_i64(job + _TOTAL), load_i64(job + _KIND)
        params = load_i64(job + _PARAMS)
        item = atomic_add(job + _NEXT, 1)
        while item < total:
            run_item(kind, params, item)
            item = atomic_add(job + _NEXT, 1)
        atomic_add(job + _ACTIVE, -1)
        leave(job)

    @intrinsic
    def task_address(typingctx):
        def codegen(context, builder, sig, args):
            int64 = ir.IntType(64)
            function = ir.Function(
                builder.module,
                ir.FunctionType(ir.VoidType(), [int64]),
                builder.module.get_unique_name("npga_pool_task"),
            )
            function.linkage = "internal"
            inner_builder = ir.IRBuilder(function.append_basic_block())
            task_sig = types.none(types.int64)
            compiled = context.compile_subroutine(builder, task, task_sig)
            context.call_internal_no_propagate(
                inner_builder, compiled.fndesc, task_sig, function.args
            )
            inner_builder.ret_void()
            return builder.ptrtoint(function, int64)

        return types.int64(), codegen

    return task_address


@inner
def leave(job):
    """Gives up one share of a job."""
    if atomic_add(job + _OWNERS, -1) == 1:
        free(job)


@inner
def _num_threads(frame, arguments):
    """How many threads XLA has; 1 without a pool."""
    store_i64(arguments, 32)
    store_i64(arguments + 8, 0)
    store_i64(arguments + 16, load_i64(frame + _FRAME_CONTEXT))
    store_i64(arguments + 24, arguments + 32)
    if _succeeds(frame, _API_NUM_THREADS, arguments):
        return load_i64(arguments + 32)
    return 1


@inner
def _schedule(frame, arguments, task, job):
    """Whether XLA will call `task` with the job, some time."""
    store_i64(arguments, 40)
    store_i64(arguments + 8, 0)
    store_i64(arguments + 16, load_i64(frame + _FRAME_CONTEXT))
    store_i64(arguments + 24, task)
    store_i64(arguments + 32, job)
    return _succeeds(frame, _API_SCHEDULE, arguments)


@inner
def _succeeds(frame, function, arguments):
    api = load_i64(frame + _FRAME_API)
    error = call(load_i64(api + function), arguments)
    if error != 0:
        store_i64(arguments, 24)
        store_i64(arguments + 8, 0)
        store_i64(arguments + 16, error)
        call(load_i64(api + _API_DESTROY_ERROR), arguments)
    return error == 0


@inner
def parallel_for(frame, task, kind, params, total, account):
    """`for i in range(total): run_item(kind, params, i)` on all threads.

    Args:
      frame: XLA's call frame, of the handler that is running.
      task: what `make_task` gave.
      account: of the memory that this and the items take.

    Returns:
      False where memory ran out, here or in an item.
    """
    job = allocate(account, _JOB_BYTES)
    if job == 0:
        return False
    arguments = job + _ARGUMENTS
    helpers = max(min(_num_threads(frame, arguments), total) - 1, 0)
    store_i64(job + _NEXT, 0)
    store_i64(job + _ACTIVE, 0)
    # The helpers, the task that is called here, and this function.
    store_i64(job + _OWNERS, helpers + 2)
    store_i64(job + _TOTAL, total)
    store_i64(job + _KIND, kind)
    store_i64(job + _PARAMS, params)
    for _ in range(helpers):
        if not _schedule(frame, arguments, task, job):
            leave(job)
    call(task, job)
    while atomic_load(job + _ACTIVE) > 0:
        # A helper may have lost its core to another process: it needs this one.
        yield_core()
    leave(job)
    return not has_failed(account)
