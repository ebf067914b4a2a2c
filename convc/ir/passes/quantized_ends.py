"""How a value is rounded to bytes: the scales of quantize nodes, and what bounds a value before it is rounded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops.elementwise import ClipAttributes

__all__ = ["Ending", "alone", "scaled"]


def _scalar(node: Node) -> float | None:
    """Return the value of a constant of one element."""
    if node.op != CONSTANT or node.type.size != 1:
        return None
    return float(np.asarray(node.value).reshape(-1)[0])


def scaled(graph: Graph, node: Node) -> tuple[float, int] | None:
    """Return scale and zero point of a quantize or dequantize node of one constant scale."""
    scale, zero = (_scalar(graph[i]) for i in node.inputs[1:])
    return None if scale is None or zero is None or scale <= 0 else (scale, int(zero))


@dataclass(frozen=True, slots=True)
class Ending:
    """What ends in a quantize node.

    Attributes:
        inner: the node whose value is bounded and rounded.
        chain: the ReLU and Clip nodes behind it, the last one first.
        scale, zero: of the result.
        least, greatest: bounds of the result, the zero point within.
    """

    inner: Node
    chain: tuple[Node, ...]
    scale: float
    zero: int
    least: int
    greatest: int

    @staticmethod
    def of(graph: Graph, node: Node) -> Ending | None:
        """Return what ends in a quantize node; None if its scale is not one constant or something else reads a value in between."""
        out = scaled(graph, node)
        (inner, *_) = graph.operands(node)
        if out is None or not alone(graph, inner, node):
            return None
        low, high, chain = -np.inf, np.inf, []
        while inner.op in ("relu", "clip"):
            a = inner.attributes
            limits = (a.min, a.max) if isinstance(a, ClipAttributes) else (0.0, np.inf)
            # The outer bounds hold, also where the inner ones lie beyond them.
            low, high = (min(max(v, low), high) for v in limits)
            chain.append(inner)
            (before, *_) = graph.operands(inner)
            if not alone(graph, before, inner):
                return None
            inner = before
        info = np.iinfo(node.type.dtype)
        least, greatest = (
            int(np.clip(np.rint(np.float32(v) / np.float32(out[0])) + out[1], info.min, info.max))
            for v in (low, high)
        )
        return Ending(inner, tuple(chain), *out, least, greatest)


def alone(graph: Graph, node: Node, user: Node) -> bool:
    """Whether nothing but `user` reads a value, so that it may vanish."""
    return graph.users[node.name] == (user,) and node.name not in graph.output_values
