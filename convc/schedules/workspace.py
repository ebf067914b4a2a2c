"""How much scratch memory the kernels of a module take from the runtime, found while they are compiled.

What a kernel keeps on its stack does not count. The rest it takes from the runtime, each thread for itself, and gives back before
it ends; so a thread's need is that of the neediest kernel, all of whose pieces are counted as taken at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

__all__ = ["Workspace", "collect", "note", "one_function"]

# Each piece begins at a cache line.
_ALIGNMENT: Final = 64


class Workspace:
    """The neediest kernel's bytes so far."""

    def __init__(self) -> None:
        self.nbytes = 0
        self.function = 0


_current: ContextVar[Workspace | None] = ContextVar("convc_workspace", default=None)


@contextmanager
def collect() -> Iterator[Workspace]:
    """Yield what the kernels compiled inside the block need.

    Example:
        >>> with collect() as workspace:
        ...     with one_function():
        ...         note(100)
        ...         note(64)
        ...     with one_function():
        ...         note(1)
        >>> workspace.nbytes
        192
    """
    workspace = Workspace()
    token = _current.set(workspace)
    try:
        yield workspace
    finally:
        _current.reset(token)


@contextmanager
def one_function() -> Iterator[None]:
    """Enclose the compilation of one kernel."""
    workspace = _current.get()
    if workspace is not None:
        workspace.function = 0
    yield
    if workspace is not None:
        workspace.nbytes = max(workspace.nbytes, workspace.function)


def note(nbytes: int) -> None:
    """Count one piece that the kernel being compiled takes from the runtime."""
    workspace = _current.get()
    if workspace is not None:
        workspace.function += -(-nbytes // _ALIGNMENT) * _ALIGNMENT
