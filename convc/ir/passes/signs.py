"""What is known of a value's sign from the ops that made it."""

from __future__ import annotations

from typing import Final

import numpy as np

from convc.ir.graph import CONSTANT, Node
from convc.ir.ops.elementwise import ClipAttributes
from convc.ir.passes.rewrite import Rewriter
from convc.ir.passes.uniform import uniform_element

__all__ = ["never_negative"]

_POSITIVE: Final = frozenset({"abs", "exp", "sigmoid", "softplus", "softmax"})
# Of operands that are never negative.
_KEEPS: Final = frozenset({"sqrt", "reduce_mean", "reduce_sum", "reduce_max", "reduce_min", "reshape", "transpose", "slice"})  # fmt: skip
_KEEPS_BOTH: Final = frozenset({"add", "mul", "div", "maximum"})
# Ops that are looked through: a norm's variance is five away from its square.
_DEPTH: Final = 16


def never_negative(r: Rewriter, node: Node, depth: int = _DEPTH) -> bool:
    """Whether every element is positive, 0.0 (not -0.0) or NaN, whatever the inputs are.

    Example:
        >>> from convc.ir.text import parse
        >>> g = parse("graph @g { %x = input : f32[2]  %s = mul(%x, %x)  %e = constant splat(0.5) : f32[]  %y = add(%s, %e)  return %y }")
        >>> r = Rewriter(g)
        >>> [never_negative(r, r.keep(node)) for node in g.nodes]
        [False, True, True, True]
    """
    if node.op == CONSTANT:
        element = uniform_element(node)
        return element is not None and not np.signbit(element)
    if node.op in _POSITIVE:
        return True
    if isinstance(node.attributes, ClipAttributes):
        return node.attributes.min > 0
    if node.op == "mul" and len(set(node.inputs)) == 1:
        return True
    if not depth or node.op not in _KEEPS | _KEEPS_BOTH:
        return False
    known = (never_negative(r, operand, depth - 1) for operand in r.operands(node))
    if node.op == "maximum":
        return any(_above_zero(operand) for operand in r.operands(node)) or all(known)
    return all(known)


def _above_zero(node: Node) -> bool:
    """Whether a node is one number above 0: that of -0.0 and 0.0 may be either."""
    element = uniform_element(node)
    return element is not None and bool(element > 0)
