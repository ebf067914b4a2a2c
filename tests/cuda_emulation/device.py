"""The emulated device inside one process: TVM's own CUDA runtime, bound to the doubles.

A process that has called `install` believes in a GPU until it ends, so tests do it in a child (`worker.py`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Final

from tests.cuda_emulation.compiler import compile_kernels, device_library

__all__ = [
    "ORDERS",
    "Order",
    "compiled_sources",
    "edited",
    "install",
    "launches",
    "message",
    "set_order",
]


@dataclass(frozen=True, slots=True)
class Order:
    """How the emulation decides what CUDA leaves open between two barriers.

    Attributes:
        number: 0 runs threads and blocks upwards, 1 downwards, more shuffles the threads at every barrier.
        copies_land_early: cp.async writes at once instead of in the wait.
    """

    number: int
    copies_land_early: bool


ORDERS: Final = {
    "up": Order(0, False),
    "down": Order(1, True),
    "shuffled": Order(2, False),
    "shuffled early": Order(3, True),
}

_sources: list[str] = []
_edits: list[Callable[[str], str]] = []


@cache
def _runtime() -> ctypes.CDLL:
    runtime, driver = (ctypes.CDLL(str(p), mode=ctypes.RTLD_GLOBAL) for p in device_library())
    del driver
    runtime.cuda_emulation_message.restype = ctypes.c_char_p
    runtime.cuda_emulation_set_mode.argtypes = [ctypes.c_uint, ctypes.c_int]
    return runtime


def install() -> None:
    """Bind TVM's CUDA runtime to the doubles; must come before the process's first `import tvm`."""
    _runtime()
    import tvm.support.nvcc  # registers TVM's own callback, which ours then replaces
    import tvm_ffi

    def compile_for_emulation(source: str) -> bytes:
        for edit in _edits:
            source = edit(source)
        _sources.append(source)
        return compile_kernels(source)

    tvm_ffi.register_global_func("tvm_callback_cuda_compile", compile_for_emulation, override=True)
    _runtime().cuda_emulation_watch_host()  # after TVM, which has a handler of its own
    if not tvm.cuda(0).exist:
        raise RuntimeError(
            "the emulated device must be bound before TVM is imported; got a process that had imported it."
        )


@contextmanager
def edited(edit: Callable[[str], str]) -> Iterator[None]:
    """Spoil the CUDA C before it is compiled, to see whether the emulation notices."""
    _edits.append(edit)
    try:
        yield
    finally:
        _edits.pop()


def message() -> str:
    """Return what the device complained of since the last `set_order`, or ""."""
    return _runtime().cuda_emulation_message().decode()


def launches() -> int:
    """Return the kernels launched since the last `set_order`."""
    return _runtime().cuda_emulation_launches()


def set_order(order: Order) -> None:
    """Choose for the launches to come."""
    _runtime().cuda_emulation_set_mode(order.number, int(order.copies_land_early))


def compiled_sources() -> list[str]:
    """Return the CUDA C compiled since the last call."""
    taken = _sources[:]
    _sources.clear()
    return taken
