"""What is found out about a module's kernels while they are compiled: the scratch memory they take, and which of them begin early.

What a kernel keeps on its stack is no scratch memory. The rest it takes from the runtime, each thread for itself, and gives back before
it ends; so a thread's need is that of the neediest kernel, all of whose pieces are counted as taken at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

__all__ = ["Findings", "collect", "note_early", "note_scratch", "one_function"]

# Each piece begins at a cache line.
_ALIGNMENT: Final = 64


class Findings:
    """What was found so far.

    Attributes:
        workspace_bytes: scratch memory of the neediest kernel.
        early: kernels that begin while the one before ends, of each part of the module (see `part_names`).
    """

    def __init__(self) -> None:
        self.workspace_bytes = 0
        self.early: Counter[int] = Counter()
        self.function_bytes = 0


_current: ContextVar[Findings | None] = ContextVar("convc_findings", default=None)


@contextmanager
def collect() -> Iterator[Findings]:
    """Yield what is found out about the kernels compiled inside the block.

    Example:
        >>> with collect() as found:
        ...     with one_function():
        ...         note_scratch(100)
        ...         note_scratch(64)
        ...     with one_function():
        ...         note_scratch(1)
        >>> found.workspace_bytes
        192
    """
    found = Findings()
    token = _current.set(found)
    try:
        yield found
    finally:
        _current.reset(token)


@contextmanager
def one_function() -> Iterator[None]:
    """Enclose the compilation of one kernel."""
    found = _current.get()
    if found is not None:
        found.function_bytes = 0
    yield
    if found is not None:
        found.workspace_bytes = max(found.workspace_bytes, found.function_bytes)


def note_scratch(nbytes: int) -> None:
    """Count one piece that the kernel being compiled takes from the runtime."""
    found = _current.get()
    if found is not None:
        found.function_bytes += -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def note_early(part: int, kernels: int) -> None:
    """Count kernels of one part of the module that begin while the one before ends."""
    found = _current.get()
    if found is not None:
        found.early[part] += kernels
