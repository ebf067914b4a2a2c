"""Compute at compile time what depends on constants alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from convc.ir.graph import CONSTANT, INPUT, Graph, Node, constant
from convc.ir.ops import OPS
from convc.ir.ops.definition import Array
from convc.ir.ops.shape import PadAttributes
from convc.ir.passes.rewrite import Rewriter
from convc.ir.passes.uniform import splat, stored_bytes, uniform_element
from convc.ir.types import FLOATS, dtype_name, numpy_dtype

__all__ = ["fold_constants"]

# A result may be this much larger than its operands: enough for any real filter (VGG's largest is 392 MiB, and is no
# result of anything smaller), too little for a model that means to fill the memory of the machine that compiles it.
GROWTH_LIMIT_BYTES: Final = 256 << 20

# Every result element is some operand element: equal elements in, equal elements out.
_MOVES: Final = frozenset(
    {"reshape", "transpose", "slice", "resize", "concat", "reduce_max", "reduce_min"}
)


def _evaluate(node: Node, arrays: Sequence[Array]) -> Array:
    """Return the reference's result: floats in float64, rounded once to the node's element type."""
    wide = [a.astype(np.float64) if dtype_name(a.dtype) in FLOATS else a for a in arrays]
    # An overflow or 0/0 in the model's own constants is the model's meaning, not a reason to warn.
    with np.errstate(all="ignore"):
        result = OPS[node.op].reference(wide, node.attributes)
        return np.asarray(result).astype(numpy_dtype(node.type.dtype))


def _folded_element(node: Node, operands: Sequence[Node]) -> Array | None:
    """Return the one element of the result if it is uniform and that is cheap to know."""
    if node.op not in _MOVES and node.op != "pad" and not OPS[node.op].elementwise:
        return None
    elements = [uniform_element(o) for o in operands]
    known = [e for e in elements if e is not None]
    if len(known) != len(elements) or not node.type.size:
        return None
    if OPS[node.op].elementwise:
        return _evaluate(node, known)
    if isinstance(node.attributes, PadAttributes):
        known.append(np.array(node.attributes.value).astype(known[0].dtype))
    return known[0] if all(k.tobytes() == known[0].tobytes() for k in known) else None


def fold_constants(graph: Graph) -> Graph:
    """Return the graph with every node replaced whose operands are all constants.

    The reference computes, in float64 for floats, and its result is rounded once. A result with one value throughout stays a
    broadcast scalar where that is cheap to know: elementwise functions and moves of broadcast scalars.

    Rewrite:
        %a = constant splat(2.0) : f32[2];  %b = constant dense([1.0, 3.0]) : f32[2];  %y = mul(%a, %b)
        -->
        %y = constant dense([2.0, 6.0]) : f32[2]
    Unless:
        the result is over 256 MiB larger than the operands.
    """
    r = Rewriter(graph)
    for node in graph.nodes:
        if node.op in (INPUT, CONSTANT):
            r.keep(node)
            continue
        operands = r.operands(node)
        if any(o.op != CONSTANT for o in operands):
            r.keep(node)
            continue
        element = _folded_element(node, operands)
        if element is not None:
            r.replace(constant(node.name, splat(element, node.type.shape)))
        elif node.type.nbytes > sum(map(stored_bytes, operands)) + GROWTH_LIMIT_BYTES:
            r.keep(node)
        else:
            r.replace(constant(node.name, _evaluate(node, [o.value for o in operands])))
    return r.finish()
