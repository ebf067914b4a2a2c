"""Own TVM's thread pool: as many threads as asked for, on all of the process's cores.

TVM has one pool per calling thread, made at that thread's first parallel kernel with a size that is final. Left alone it takes
half of the cores, pins the workers, and asks the system for the number of cores at each launch. So before each run:

    threads = 1   SetMaxConcurrency(1): kernels run on the calling thread, no pool is made
    threads > 1   SetMaxConcurrency(usable cores) sizes the pool if this thread has none yet, then config_threadpool(1, threads)
                  limits how many of its workers take part

Both are per thread and neither touches TVM_NUM_THREADS, which would reach other threads and child processes.
TVM_BIND_THREADS=0 (no pinning) is set unless the user has set it. Nothing is ever run with fewer threads than asked: that is
an error.

SOURCE  TVM 0.27 src/runtime/thread_pool.cc (TVMBackendParallelLaunch, ThreadPool),
        src/runtime/threading_backend.cc (MaxConcurrency)
"""

from __future__ import annotations

import os
import threading

from convc.errors import InputError
from convc.runtime import host
from convc.runtime.library import Runtime

__all__ = ["ThreadPool", "check_threads"]

_BIG_CORES = 1  # config_threadpool's affinity mode; without pinning it means nothing
_pool_size = 1
_local = threading.local()


def check_threads(threads: int | None) -> int:
    """Return the number of threads to run with; None means all that this process may use.

    Raises:
        InputError: if it is below 1 or above the number of usable cores.
    """
    usable = host.usable_threads()
    if threads is None:
        return usable
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= usable:
        raise InputError(
            f"threads must be from 1 to the usable cores, {host.describe_threads()}; got {threads!r}."
        )
    return threads


class ThreadPool:
    """Sets up the calling thread's TVM pool for a number of threads."""

    __slots__ = ("_runtime", "threads")

    def __init__(self, runtime: Runtime, threads: int) -> None:
        global _pool_size
        self._runtime = runtime
        self.threads = threads
        # The largest ever seen: a thread's pool cannot grow, and a later module may want all cores.
        _pool_size = max(_pool_size, threads, host.usable_threads())
        os.environ.setdefault("TVM_BIND_THREADS", "0")
        _watch_forks()

    def activate(self) -> None:
        """Make the calling thread's kernels run on `threads` threads.

        Raises:
            InputError: if TVM already made a smaller pool in this thread, or this thread was forked after it had one.
        """
        runtime, threads = self._runtime, self.threads
        if threads == 1:
            runtime.set_max_concurrency(1)
            return
        if getattr(_local, "forked", False):
            raise InputError(
                f"threads must be 1 in a process forked from one that ran a module; got {threads}."
                " Start workers with multiprocessing's 'spawn', or run the module in a new thread."
            )
        _local.has_pool = True
        runtime.set_max_concurrency(_pool_size)
        if runtime.num_threads() == threads:  # makes the pool
            return
        runtime.config_threadpool(_BIG_CORES, threads)
        runtime.set_max_concurrency(_pool_size)  # config_threadpool resets it
        size = runtime.num_threads()
        if size != threads:
            raise InputError(
                f"threads must be at most {size}, the size of the pool that TVM already made in this thread; got {threads}."
                " Run the module in a new thread, or set TVM_NUM_THREADS before TVM's first kernel."
            )


_watching = False


def _watch_forks() -> None:
    global _watching
    if not _watching:
        _watching = True
        os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    # fork copies the pool but not its workers: a parallel kernel in the child's only thread would wait for ever.
    _local.forked = getattr(_local, "has_pool", False)
