"""Decide in which memory order every value lies, walking the units once in order.

A convolution names the blocks it wants; every other op follows its operands' block when it can work in it, and is plain otherwise.
A value that a convolution reads with padding gets a halo of zeros of its own, so that nothing is ever copied to be padded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convc.ir.graph import CONSTANT, INPUT, Graph, Node
from convc.lowering.homes import Home, homes_of
from convc.lowering.partition import Unit
from convc.lowering.pooled_step import PooledStep
from convc.schedules import bottleneck, gated, pooled
from convc.schedules.backend import backend_of
from convc.schedules.bottleneck import Bottleneck
from convc.schedules.chains import chain_problem
from convc.schedules.following import comes_first, follows, quantized_operands
from convc.schedules.layout import PLAIN, Halo, Layout
from convc.schedules.op_choice import op_algorithm
from convc.schedules.operators import OpAlgorithm
from convc.schedules.plan import Chain, Plan
from convc.schedules.select import is_convolution, problem_for, problem_of
from convc.schedules.weight_gradient_problem import weight_gradient_spec
from convc.schedules.weight_gradients import PLAIN_LOOPS, WeightGradient, weight_gradient_named
from convc.target import Target

__all__ = [
    "Layouts",
    "assign_layouts",
    "chain_of",
    "chain_of_nodes",
    "chosen_op",
    "gradient_row",
]


@dataclass(frozen=True, slots=True)
class Layouts:
    """Memory orders of a graph's values.

    Attributes:
        primary: value -> the layout its producer writes.
        halos: (value, block) -> the halo that some reader of that block wants.
        block: unit's result -> the block its kernel works in.
        homes: value -> the image that it is a part of, for operands of concatenations and for slices.
    """

    primary: dict[str, Layout]
    halos: dict[tuple[str, int], Halo]
    block: dict[str, int]
    homes: dict[str, Home]

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
    given = _Given(graph, units, plan, target)
    for unit in units:
        node = unit.result
        fixed = given.of[node.name]
        if fixed is not None:
            for key, border in fixed.borders.items():
                halos[key] = halos.get(key, Halo()).union(border)
            written[node.name] = block[node.name] = fixed.written
        elif comes_first(node, target) and not written[node.inputs[0]]:
            written[node.name] = block[node.name] = given.wanted[node.name]
        else:
            written[node.name] = block[node.name] = _followed(
                graph, unit, written, chosen_op(unit, plan, target)
            )
    homes = homes_of(graph, units, block, written)
    for value, home in homes.items():
        # One image has one halo: as large as any reader of any of its parts wants.
        key = (home.image, written[value])
        halos[key] = halos.get(key, Halo()).union(halos.get((value, written[value]), Halo()))
    primary = {}
    for value, b in written.items():
        image = homes[value].image if value in homes else value
        primary[value] = Layout(b, halos.get((image, b), Halo()))
    return Layouts(primary, halos, block, homes)


@dataclass(frozen=True, slots=True)
class _Fixed:
    """What a unit that names its blocks reads, with which borders, and the block that it writes."""

    borders: Mapping[tuple[str, int], Halo]
    written: int


class _Given:
    """What each unit's kernel reads and writes, if its blocks are given before anything else is known.

    Attributes:
        of: unit's result -> its blocks; None where it follows its operands.
        wanted: unit's result -> the block in which the first of its readers that wants one reads it, itself or through what follows
            it; or 0.
    """

    def __init__(self, graph: Graph, units: Sequence[Unit], plan: Plan, target: Target) -> None:
        self.graph, self.plan, self.target = graph, plan, target
        self.of = {unit.result.name: self._fixed(unit) for unit in units}
        self.unit_of = {node.name: unit for unit in units for node in unit.nodes}
        # From the last on, so that a value's readers are known. Asked from the front, each residual asks twice for all that follows:
        # ten blocks of tokens with two residuals each took 35 s.
        self.wanted: dict[str, int] = {}
        for unit in reversed(units):
            image = unit.result.type.is_image
            self.wanted[unit.result.name] = self._wanted(unit.result) if image else 0

    def _fixed(self, unit: Unit) -> _Fixed | None:
        graph, plan, target, node = self.graph, self.plan, self.target, unit.result
        chain = chain_of(plan, unit)
        if chain is not None and chain.kind == pooled.NAME:
            step = PooledStep.of(graph, unit, chain, plan, target)
            return _Fixed(step.borders, step.wants.result.block)
        read, written = node.inputs[0] if node.inputs else "", None
        if chain is not None and chain.kind != gated.NAME:
            wants = bottleneck.operands(chain_of_nodes(graph, unit), chain.knobs)
            read = unit.nodes[0].inputs[0]
        elif is_convolution(node):
            choice = plan[node.name]
            algorithm = backend_of(target).algorithm(choice.algorithm)
            problem = problem_for(graph, node, algorithm, target)
            wants = algorithm.operands(problem, target, choice.knobs)
            if chain is not None:
                read = gated.gate_of(graph, unit.nodes[0])[0]
        elif (row := gradient_row(node, plan, target)) is not None:
            spec = weight_gradient_spec(graph, node)
            wants, written = row.operands(spec, plan.gradients[node.name].knobs), 0
        elif (wanted := quantized_operands(graph, node, target, plan)) is not None:
            wants = wanted
        else:
            return None
        written = wants.result.block if written is None else written
        return _Fixed({(read, wants.data.block): wants.border}, written)

    def _wanted(self, node: Node) -> int:
        """Return the block in which the first of a value's readers that wants one reads it; what follows it is known already."""
        for user in self.graph.users[node.name]:
            unit = self.unit_of[user.name]
            fixed = self.of[unit.result.name]
            if fixed is not None:
                blocks = [block for value, block in fixed.borders if value == node.name and block]
                found = blocks[0] if blocks else 0
            else:
                found = self.wanted[unit.result.name]
                chosen = chosen_op(unit, self.plan, self.target)
                if found and not all(follows(self.graph, n, found, chosen) for n in unit.nodes):
                    found = 0
            if found > 1:
                return found
        return 0


def chain_of(plan: Plan, unit: Unit) -> Chain | None:
    """Return the chain whose layers a unit is."""
    names = tuple(node.name for node in unit.nodes)
    return next((chain for chain in plan.chains if chain.layers == names), None)


def chain_of_nodes(graph: Graph, unit: Unit) -> Bottleneck:
    """Return the problem that a chain's unit poses."""
    return chain_problem([problem_of(graph, node) for node in unit.nodes])


def gradient_row(node: Node, plan: Plan, target: Target) -> WeightGradient | None:
    """Return the algorithm that computes a node which is a weight gradient; None for all other nodes, and for plain loops."""
    choice = plan.gradients.get(node.name)
    if choice is None or choice.algorithm == PLAIN_LOOPS:
        return None
    return weight_gradient_named(choice.algorithm, target)


def chosen_op(unit: Unit, plan: Plan, target: Target) -> OpAlgorithm | None:
    """Return the algorithm that computes a unit instead of its ops' own computation."""
    choice = plan.operations.get(unit.result.name)
    return None if choice is None else op_algorithm(unit.result, choice.algorithm, target)


def _followed(
    graph: Graph, unit: Unit, written: dict[str, int], algorithm: OpAlgorithm | None
) -> int:
    """Return the widest of the operands' blocks that every node of the unit can work in, or 0."""
    operands = [graph[i] for i in unit.operands]
    values = [n for n in operands if n.op != CONSTANT]
    if not all(n.type.is_image for n in (*values, unit.result)):
        return 0
    for block in sorted({written[n.name] for n in values}, reverse=True):
        if block and all(follows(graph, node, block, algorithm) for node in unit.nodes):
            return block
    return 0
