"""Decide in which memory order every value lies, walking the units once in order.

A convolution names the blocks it wants; every other op follows its operands' block when it can work in it, and is plain otherwise.
A value that a convolution reads with padding gets a halo of zeros of its own, so that nothing is ever copied to be padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from convc.ir.graph import CONSTANT, INPUT, Graph, Node
from convc.ir.ops import OPS
from convc.ir.ops.quantized import QuantizedConvAttributes, quantized_spec
from convc.lowering.partition import Unit, is_literal
from convc.lowering.pooled_step import PooledStep
from convc.schedules import bottleneck, gated, pooled, quantized
from convc.schedules.algorithm import Operands
from convc.schedules.backend import backend_of
from convc.schedules.bottleneck import Bottleneck
from convc.schedules.chains import chain_problem
from convc.schedules.layout import PLAIN, Halo, Layout
from convc.schedules.op_choice import op_algorithm
from convc.schedules.operators import OPERATORS, OpAlgorithm
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
    "joins_blocks",
    "quantized_operands",
]


@dataclass(frozen=True, slots=True)
class Home:
    """A value that is written straight into an image of more channels.

    Attributes:
        image: the value that it is a part of, itself in no other.
        channel: where it begins there.
        by: the concatenation that wants it there, and as which operand.
    """

    image: str
    channel: int
    by: tuple[str, int]


@dataclass(frozen=True, slots=True)
class Layouts:
    """Memory orders of a graph's values.

    Attributes:
        primary: value -> the layout its producer writes.
        halos: (value, block) -> the halo that some reader of that block wants.
        block: unit's result -> the block its kernel works in.
        homes: value -> the image that it is written into, for operands of concatenations.
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
    for unit in units:
        node = unit.result
        chain = chain_of(plan, unit)
        if chain is not None and chain.kind == pooled.NAME:
            step = PooledStep.of(graph, unit, chain, plan, target)
            for key, border in step.borders.items():
                halos[key] = halos.get(key, Halo()).union(border)
            written[node.name] = block[node.name] = step.wants.result.block
        elif chain is not None and chain.kind != gated.NAME:
            wants = bottleneck.operands(chain_of_nodes(graph, unit), chain.knobs)
            key = (unit.nodes[0].inputs[0], wants.data.block)
            halos[key] = halos.get(key, Halo()).union(wants.border)
            written[node.name] = block[node.name] = wants.result.block
        elif is_convolution(node):
            choice = plan[node.name]
            algorithm = backend_of(target).algorithm(choice.algorithm)
            problem = problem_for(graph, node, algorithm, target)
            wants = algorithm.operands(problem, target, choice.knobs)
            read = node.inputs[0] if chain is None else gated.gate_of(graph, unit.nodes[0])[0]
            key = (read, wants.data.block)
            halos[key] = halos.get(key, Halo()).union(wants.border)
            written[node.name] = block[node.name] = wants.result.block
        elif (row := gradient_row(node, plan, target)) is not None:
            spec = weight_gradient_spec(graph, node)
            wants = row.operands(spec, plan.gradients[node.name].knobs)
            key = (node.inputs[0], wants.data.block)
            halos[key] = halos.get(key, Halo()).union(wants.border)
            written[node.name] = block[node.name] = 0
        elif (wanted := quantized_operands(graph, node, target)) is not None:
            key = (node.inputs[0], wanted.data.block)
            halos[key] = halos.get(key, Halo()).union(wanted.border)
            written[node.name] = block[node.name] = wanted.result.block
        else:
            written[node.name] = block[node.name] = _followed(
                graph, unit, written, chosen_op(unit, plan, target)
            )
    homes = _homes(graph, units, block)
    for value, home in homes.items():
        # One image has one halo: as large as any reader of any of its parts wants.
        key = (home.image, written[value])
        halos[key] = halos.get(key, Halo()).union(halos.get((value, written[value]), Halo()))
    primary = {}
    for value, b in written.items():
        image = homes[value].image if value in homes else value
        primary[value] = Layout(b, halos.get((image, b), Halo()))
    return Layouts(primary, halos, block, homes)


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


def quantized_operands(graph: Graph, node: Node, target: Target) -> Operands | None:
    """Return the memory orders of a convolution of bytes, if the kernel on blocks of channels computes it."""
    attributes = node.attributes
    if not isinstance(attributes, QuantizedConvAttributes):
        return None
    data, *constants = graph.operands(node)
    if "quantized" not in backend_of(target).schedules or any(n.op != CONSTANT for n in constants):
        return None
    spec = quantized_spec(data.type, constants[0].type, attributes)
    return quantized.operands(spec, target, quantized.knobs(spec, target))


def joins_blocks(graph: Graph, node: Node, block: int) -> bool:
    """Whether the node puts images of whole blocks of channels one behind the other, so that each may be written in its place."""
    if node.op != "concat" or not block or not node.type.is_image:
        return False
    axis: int = node.attributes.axis  # type: ignore[attr-defined]
    return axis == 1 and all(n.type.shape[1] % block == 0 for n in graph.operands(node))


def _homes(graph: Graph, units: Sequence[Unit], block: dict[str, int]) -> dict[str, Home]:
    """Return which values are written into a concatenation's result; the last concatenation of a chain holds them all."""
    homes: dict[str, Home] = {}
    for unit in reversed(units):
        node = unit.result
        b = block[node.name]
        if not joins_blocks(graph, node, b):
            continue
        outer = homes.get(node.name)
        begin = outer.channel if outer else 0
        for index, operand in enumerate(node.inputs):
            # A value has one home; inputs, constants and values in another block must be copied.
            if operand not in homes and block.get(operand) == b:
                image = outer.image if outer else node.name
                homes[operand] = Home(image, begin, (node.name, index))
            begin += graph[operand].type.shape[1]
    return homes


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
        if block and all(_follows(graph, node, block, algorithm) for node in unit.nodes):
            return block
    return 0


def _follows(graph: Graph, node: Node, block: int, algorithm: OpAlgorithm | None) -> bool:
    operands = [graph[i] for i in node.inputs]
    if OPS[node.op].elementwise:
        operands = [n for n in operands if not is_literal(n)]
    types = [n.type for n in operands]
    if algorithm is not None:
        return algorithm.follows(node, types, block)
    return node.op in OPERATORS and OPERATORS[node.op].follows(node, types, block)
