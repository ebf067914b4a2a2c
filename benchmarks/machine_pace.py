"""A reference for `interleave`: the kernel by which the tuner, too, tells how fast the machine is just now."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

from convc.runtime.library import runtime_library
from convc.runtime.threads import ThreadPool
from convc.target import parse_target
from convc.tuning.pace import reference_call

__all__ = ["machine_reference"]

# The least of these: another program may take the core during one.
_CALLS: Final = 5


def machine_reference(threads: int) -> Callable[[], float]:
    """Return a call that runs a 3 x 3 convolution in L2 on so many threads and returns its seconds, about 0.1 ms of one core."""
    pool, call = ThreadPool(runtime_library(), threads), _kernel(threads)

    def measure() -> float:
        pool.activate()
        return min(call() for _ in range(_CALLS))

    return measure


@functools.cache
def _kernel(threads: int) -> Callable[[], float]:
    ThreadPool(runtime_library(), threads).activate()
    return reference_call(parse_target("llvm").with_cores(threads))
