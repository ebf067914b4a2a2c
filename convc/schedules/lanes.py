"""Partial results in the lanes of a vector, brought together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import te

__all__ = ["tree"]

Expr = Any  # TVM's scalar expressions have no common public class in 0.27


def tree(
    combine: Callable[[Expr, Expr], Expr], parts: te.Tensor, at: Sequence[Expr], lanes: int
) -> Expr:
    """Return what the lanes, the last axis of `parts`, come to, combined in pairs."""
    terms = [parts(*at, lane) for lane in range(lanes)]
    while len(terms) > 1:
        pairs = zip(terms[::2], terms[1::2], strict=False)
        terms = [combine(p, q) for p, q in pairs] + terms[len(terms) // 2 * 2 :]
    return terms[0]
