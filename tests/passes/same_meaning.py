"""What holds for every pass on every graph: the result is a graph, means the same, and has nothing left to rewrite."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from convc.ir import Graph
from convc.ir.reference import interpret

__all__ = ["rewritten"]


def rewritten(step: Callable[[Graph], Graph], graph: Graph, rounding: float = 0.0) -> Graph:
    """Return what a pass makes of a graph, having compared what both compute: to the last bit, or up to `rounding`."""
    changed = step(graph)
    changed.verify()
    rng = np.random.default_rng(0)
    data = {n.name: rng.standard_normal(n.type.shape) for n in graph.inputs}
    wanted, got = interpret(graph, data), interpret(changed, data)
    assert list(wanted) == list(got)
    for name in wanted:
        np.testing.assert_allclose(got[name], wanted[name], rtol=rounding, atol=rounding)
    assert step(changed) is changed
    return changed
