"""What rewrites of scheduled functions ask: the block that multiplies and adds, and the loops inside one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm_ffi
from tvm import s_tir, tirx

__all__ = ["loops_in", "replaced", "update_of"]

Expr = Any  # TVM's scalar expressions and statements have no common public classes in 0.27


def update_of(func: tirx.PrimFunc) -> Expr:
    """Return the realization of the block that multiplies and adds."""
    found: list[Expr] = []

    def note(realize: Expr) -> None:
        if realize.block.name_hint == "acc_update":
            found.append(realize)

    tvm_ffi.structural_walk(func.body, (s_tir.SBlockRealize, note))
    (realize,) = found
    return realize


def loops_in(func: tirx.PrimFunc, outermost: Expr) -> dict[Expr, Expr]:
    """Return the variables of a loop and of all loops inside it, and their extents."""
    found: dict[Expr, Expr] = {}

    def note(loop: Expr) -> None:
        found[loop.loop_var] = loop.extent

    def enter(loop: Expr) -> None:
        if loop.loop_var.same_as(outermost):
            tvm_ffi.structural_walk(loop, (tirx.For, note))

    tvm_ffi.structural_walk(func.body, (tirx.For, enter))
    return found


def replaced(value: Expr, by: Mapping[Expr, Expr]) -> Expr:
    """Return an expression with other ones in the place of variables."""

    def other(var: Expr) -> Expr:
        return next((new for old, new in by.items() if var.same_as(old)), var)

    return tvm_ffi.structural_map(value, (tirx.Var, other))
