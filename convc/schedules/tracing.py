"""Every schedule of an algorithm begins here, so that TVM's trace of its steps can be had by those who want it.

A trace says what S-TIR primitives did. What rewrites the function behind them (prefetches, a transform's program, permutations of
vectors) computes the same and is in no trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tvm import s_tir, tirx

__all__ = ["begin", "recorded"]

_schedules: ContextVar[list[s_tir.Schedule] | None] = ContextVar("convc_schedules", default=None)


def begin(func: tirx.PrimFunc) -> s_tir.Schedule:
    """Return the schedule of a function that nothing is scheduled of yet."""
    schedule, current = s_tir.Schedule(func), _schedules.get()
    if current is not None:
        current.append(schedule)
    return schedule


@contextmanager
def recorded() -> Iterator[list[s_tir.Schedule]]:
    """Yield a list of the schedules that are begun inside the block.

    Example:
        >>> from tvm import te
        >>> x = te.placeholder((4, 8), name="x")
        >>> func = te.create_prim_func([x, te.compute(x.shape, lambda *i: x(*i) + 1.0, name="y")])
        >>> with recorded() as schedules:
        ...     sch = begin(func)
        ...     sch.vectorize(sch.get_loops(sch.get_sblock("y"))[1])
        >>> len(schedules[0].trace.insts) > 2
        True
    """
    found: list[s_tir.Schedule] = []
    token = _schedules.set(found)
    try:
        yield found
    finally:
        _schedules.reset(token)
