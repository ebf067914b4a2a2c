"""Write powers with small constant exponents as products and roots, which are vector instructions; pow is a call for each element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from convc.ir.graph import Graph, Node
from convc.ir.passes.rewrite import Rewriter
from convc.ir.passes.signs import never_negative
from convc.ir.passes.uniform import uniform_element
from convc.ir.types import numpy_dtype

__all__ = ["expand_powers"]

_Write = Callable[[Rewriter, str, Node], Node]


def _square(r: Rewriter, name: str, x: Node) -> Node:
    return r.add(name, "mul", [x, x])


def _cube(r: Rewriter, name: str, x: Node) -> Node:
    return r.add(name, "mul", [_square(r, r.unique(f"{name}_square"), x), x])


def _fourth(r: Rewriter, name: str, x: Node) -> Node:
    return _square(r, name, _square(r, r.unique(f"{name}_square"), x))


def _root(r: Rewriter, name: str, x: Node) -> Node:
    if never_negative(r, x):
        return r.add(name, "sqrt", [x])
    return _bounded(r, name, x, _positive_root(r, name, x), np.inf)


def _reciprocal(r: Rewriter, name: str, x: Node) -> Node:
    return r.add(name, "reciprocal", [x])


def _inverse_root(r: Rewriter, name: str, x: Node) -> Node:
    if never_negative(r, x):
        return _reciprocal(r, name, r.add(r.unique(f"{name}_sqrt"), "sqrt", [x]))
    inverse = _reciprocal(r, r.unique(f"{name}_inverse"), _positive_root(r, name, x))
    return _bounded(r, name, x, inverse, 0.0)


def _positive_root(r: Rewriter, name: str, x: Node) -> Node:
    """Return the root, 0.0 of both zeros."""
    root = r.add(r.unique(f"{name}_sqrt"), "sqrt", [x])
    return r.add(r.unique(f"{name}_positive"), "abs", [root])


def _bounded(r: Rewriter, name: str, x: Node, value: Node, at_minus_infinity: float) -> Node:
    """Return the value, but for a number where x is minus infinity: there pow is defined and a root is not."""
    dtype = numpy_dtype(x.type.dtype)
    least, there = (r.constant(f"{name}_{stem}", np.array(number, dtype)) for stem, number in (("least", -np.inf), ("there", at_minus_infinity)))  # fmt: skip
    is_least = r.add(r.unique(f"{name}_is_least"), "equal", [x, least])
    return r.add(name, "where", [is_least, there, value])


# At most two roundings each, as many as pow of libm promises in units of the last place.
_WRITTEN: Final[dict[float, _Write]] = {
    2.0: _square,
    3.0: _cube,
    4.0: _fourth,
    0.5: _root,
    -1.0: _reciprocal,
    -0.5: _inverse_root,
}


def expand_powers(graph: Graph) -> Graph:
    """Return the graph with x * x and the like for powers 2, 3, 4, 1/2, -1 and -1/2 of floats.

    They are pow to the last special value: its root of -0.0 is 0.0 and of minus infinity infinity, where sqrt's are -0.0 and NaN. So what
    may be negative is looked at; a variance plus epsilon may not.

    Rewrite:
        %two = constant splat(2.0) : f32[];  %y = pow(%x, %two)
        -->
        %y = mul(%x, %x)

        %half = constant splat(-0.5) : f32[];  %a = abs(%x);  %y = pow(%a, %half)
        -->
        %a = abs(%x);  %y_sqrt = sqrt(%a);  %y = reciprocal(%y_sqrt)
    Unless:
        the exponent varies or makes the result larger than x.
    """
    if not any(n.op == "pow" for n in graph.nodes):
        return graph
    r = Rewriter(graph)
    for node in graph.nodes:
        base, *exponent = r.operands(node) if node.op == "pow" else (node,)
        element = uniform_element(exponent[0]) if exponent else None
        write = None if element is None else _WRITTEN.get(float(element))
        if write is None or base.type != node.type or not node.type.is_float:
            r.keep(node)
        else:
            write(r, node.name, base)
    return r.finish()
