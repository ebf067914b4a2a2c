"""Decide in which memory order every value lies, walking the units once in order.

A convolution names the blocks it wants; every other op follows its operands' block when it can work in it, and is plain otherwise.
A value that a convolution reads with padding gets a halo of zeros of its own, so that nothing is ever copied to be padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from convc.ir.graph import CONSTANT, INPUT, Graph, Node
from convc.ir.ops import OPS
from convc.lowering.partition import Unit, is_literal
from convc.schedules.layout import PLAIN, Halo, Layout
from convc.schedules.operators import OPERATORS
from convc.schedules.plan import Plan
from convc.schedules.select import is_convolution, problem_of
from convc.schedules.table import algorithm_named
from convc.target import Target

__all__ = ["Layouts", "assign_layouts"]


@dataclass(frozen=True, slots=True)
class Layouts:
    """Memory orders of a graph's values.

    Attributes:
        primary: value -> the layout its producer writes.
        halos: (value, block) -> the halo that some reader of that block wants.
        block: unit's result -> the block its kernel works in.
    """

    primary: dict[str, Layout]
    halos: dict[tuple[str, int], Halo]
    block: dict[str, int]

    def of(self, value: str, block: int) -> Layout:
        """Return the layout in which readers that want `block` find the value."""
        if self.primary[value].block == block:
            return self.primary[value]
        return Layout(block, self.halos.get((value, block), Halo())) if block else PLAIN


def assign_layouts(graph: Graph, units: Sequence[Unit], plan: Plan, target: Target) -> Layouts:
    """Return the layouts of all values."""
    written: dict[str, int] = {n.name: 0 for n in graph.nodes if n.op in (INPUT, CONSTANT)}
    halos: dict[tuple[str, int], Halo] = {}
    block: dict[str, int] = {}
    for unit in units:
        node = unit.result
        if is_convolution(node):
            choice, problem = plan[node.name], problem_of(graph, node)
            wants = algorithm_named(choice.algorithm).operands(problem, target, choice.knobs)
            key = (node.inputs[0], wants.data.block)
            halos[key] = halos.get(key, Halo()).union(wants.border)
            written[node.name] = block[node.name] = wants.result.block
        else:
            written[node.name] = block[node.name] = _followed(graph, unit, written)
    primary = {value: Layout(b, halos.get((value, b), Halo())) for value, b in written.items()}
    return Layouts(primary, halos, block)


def _followed(graph: Graph, unit: Unit, written: dict[str, int]) -> int:
    """Return the widest of the operands' blocks that every node of the unit can work in, or 0."""
    operands = [graph[i] for i in unit.operands]
    values = [n for n in operands if n.op != CONSTANT]
    if any(n.type.rank != 4 for n in (*values, unit.result)):
        return 0
    for block in sorted({written[n.name] for n in values}, reverse=True):
        if block and all(_follows(graph, node, block) for node in unit.nodes):
            return block
    return 0


def _follows(graph: Graph, node: Node, block: int) -> bool:
    operands = [graph[i] for i in node.inputs]
    if OPS[node.op].elementwise:
        operands = [n for n in operands if not is_literal(n)]
    types = [n.type for n in operands]
    return node.op in OPERATORS and OPERATORS[node.op].follows(node, types, block)
