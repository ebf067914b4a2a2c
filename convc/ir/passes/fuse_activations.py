"""Recognise activations that exporters write as two ops."""

from __future__ import annotations

import numpy as np

from convc.ir.graph import Graph, Node
from convc.ir.ops.elementwise import HardSigmoidAttributes
from convc.ir.passes.rewrite import Rewriter

__all__ = ["fuse_activations"]


def _gated(gate: Node) -> str | None:
    """Return the activation f with f(x) = x * gate(x)."""
    if gate.op == "sigmoid":
        return "silu"
    a = gate.attributes
    # Exporters write 1/6 as a float32.
    if (
        isinstance(a, HardSigmoidAttributes)
        and np.float32(a.alpha) == np.float32(1 / 6)
        and a.beta == 0.5
    ):
        return "hard_swish"
    return None


def fuse_activations(graph: Graph) -> Graph:
    """Return the graph with x * sigmoid(x) as silu(x), and x * hard_sigmoid(x; 1/6, 1/2) as hard_swish(x).

    Rewrite:
        %s = sigmoid(%x);  %y = mul(%x, %s)
        -->
        %y = silu(%x)
    Unless:
        %s has another user or is a graph output.
    """
    r = Rewriter(graph)
    for node in graph.nodes:
        kept = r.keep(node)
        if node.op != "mul":
            continue
        a, b = r.operands(node)
        for data, gate in ((a, b), (b, a)):
            fused = _gated(gate) if gate.inputs == (data.name,) else None
            alone = len(graph.users[gate.name]) == 1 and gate.name not in graph.output_values
            if fused and alone and data.type == kept.type:
                r.remove(node.name)
                r.remove(gate.name)
                r.add(node.name, fused, [data])
                break
    return r.finish()
