"""Which layer of a model goes wrong first: parts of it are compiled with some of their values as outputs, and compared with float64.

A module shows its outputs alone. So the layers are compiled again, each with the algorithm that the module has for it, and 15 values
at a time are looked at: of 225 layers the first wrong one is found in two rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from convc.compiler import compile
from convc.deviation import OutputError, compare
from convc.ir.graph import Graph, Node, Output
from convc.ir.reference import interpret

__all__ = ["WrongLayer", "first_wrong_layer"]

_TAPS: Final = 15


@dataclass(frozen=True, slots=True)
class WrongLayer:
    """The first value that is not what it must be.

    Attributes:
        node: the layer's name in the graph.
        op: what it computes.
        error: how far it is from the reference.
        before: the error of the last value looked at that was right; None if it is the first of all.
    """

    node: str
    op: str
    error: OutputError
    before: OutputError | None


def _seen(graph: Graph, nodes: Sequence[Node]) -> Graph:
    """Return the part of a graph that computes these values, which are its outputs."""
    needed = {n.name for n in nodes}
    kept = []
    for node in reversed(graph.nodes):
        if node.name in needed or node.op == "input":
            needed.update(node.inputs)
            kept.append(node)
    return graph.with_nodes(reversed(kept), [Output(n.name, n.name) for n in nodes])


def first_wrong_layer(
    graph: Graph,
    inputs: Mapping[str, np.ndarray],
    *,
    tolerance: float = 1e-4,
    algorithms: Mapping[str, str] | None = None,
    mcpu: str = "host",
    dtype: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> WrongLayer | None:
    """Return the first layer whose compiled value is further from float64's than the tolerance; None if none is.

    Values that are outputs are not fused away: an error that fusion alone makes does not show, and None says so.

    Args:
        graph: the model, of fixed shapes.
        inputs: for which a module went wrong.
        tolerance: greatest max |error| / max |reference| of a value.
        algorithms: layer -> algorithm to use there, as the module has it.
        mcpu: the CPU of the module's code.
        dtype: the element type it was compiled for, as `compile`.
        progress: called with ("layers", those that are known to be right, all of them).
    """
    exact = interpret(graph, inputs, keep=True)
    nodes = [n for n in graph.compute_nodes if n.type.size]
    before: OutputError | None = None
    low, high, found = 0, len(nodes), None
    while low < high:
        if progress is not None:
            progress("layers", low, len(nodes))
        places = sorted({low + (high - low) * (i + 1) // _TAPS - 1 for i in range(_TAPS)})
        taps = [nodes[i] for i in places if i >= low]
        part = _seen(graph, taps)
        names = {n.name for n in part.nodes}
        pinned = {n: a for n, a in (algorithms or {}).items() if n in names}
        values = compile(part, threads=1, mcpu=mcpu, algo_for=pinned, dtype=dtype).run(inputs)
        for node in taps:
            error = compare(node.name, values[node.name], exact[node.name], tolerance)
            if not error.max_relative_error <= tolerance:
                found, high = WrongLayer(node.name, node.op, error, before), nodes.index(node)
                break
            before, low = error, nodes.index(node) + 1
        else:
            break
    return found
