"""(Graph, Plan, Target) -> Program: give every value its memory and every unit its kernel, in order."""

from __future__ import annotations

import math

import numpy as np

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops import OPS
from convc.ir.ops.conv import DenseAttributes
from convc.ir.types import numpy_dtype
from convc.lowering.kernels import (
    border_kernel,
    conv_kernel,
    dense_kernel,
    literals_of,
    reorder_kernel,
    unit_kernel,
)
from convc.lowering.layouts import Layouts, assign_layouts
from convc.lowering.legality import check_graph
from convc.lowering.partition import Unit, partition
from convc.lowering.program import Argument, Buffer, Call, Kernel, Program
from convc.schedules import dense
from convc.schedules.algorithm import Operands
from convc.schedules.layout import PLAIN, Halo, Layout, View
from convc.schedules.plan import Plan
from convc.schedules.select import is_convolution, problem_of
from convc.schedules.table import algorithm_named
from convc.target import Target

__all__ = ["emit"]

# A parallel launch costs 3 us with two threads (measured): below 30 000 cycles, 8 us, one thread is done sooner.
_PARALLEL_CYCLES = 30_000


def emit(graph: Graph, plan: Plan, target: Target) -> Program:
    """Return the program of a graph.

    Raises:
        DTypeError, ShapeError: if a value is none that kernels can have, see `legality`.
    """
    check_graph(graph)
    return _Emitter(graph, plan, target).run()


class _Emitter:
    """Walks the units once; `places` is where each value can be found, by block."""

    def __init__(self, graph: Graph, plan: Plan, target: Target) -> None:
        self.graph, self.plan, self.target = graph, plan, target
        self.units = partition(graph)
        self.layouts: Layouts = assign_layouts(graph, self.units, plan, target)
        self.calls: list[Call] = []
        self.weights: dict[str, np.ndarray] = {}
        self.buffers = 0
        self.places: dict[str, dict[int, Buffer]] = {}
        self.outputs = {
            o.value: Buffer(f"output{i}", "output", graph[o.value].type.nbytes, i)
            for i, o in reversed(list(enumerate(graph.outputs)))
        }

    def run(self) -> Program:
        for index, node in enumerate(self.graph.inputs):
            buffer = Buffer(f"input{index}", "input", node.type.nbytes, index)
            self.places[node.name] = {0: buffer}
        for unit in self.units:
            self._unit(unit)
        for index, output in enumerate(self.graph.outputs):
            self._deliver(self.graph[output.value], index)
        signature = [(n.name, n.type.shape, n.type.dtype) for n in self.graph.inputs]
        results = [
            (o.name, self.graph[o.value].type.shape, self.graph[o.value].type.dtype)
            for o in self.graph.outputs
        ]
        return Program(
            self.graph.name, tuple(signature), tuple(results), tuple(self.calls), self.weights
        )

    # ---- units --------------------------------------------------------------------------------------------------

    def _unit(self, unit: Unit) -> None:
        node = unit.result
        if node.op == "reshape":
            self._reshape(node)
        elif is_convolution(node):
            self._convolution(node)
        elif node.op == "dense" and self._packs(node):
            self._dense(node)
        else:
            self._other(unit)

    def _convolution(self, node: Node) -> None:
        choice, problem = self.plan[node.name], problem_of(self.graph, node)
        algorithm = algorithm_named(choice.algorithm)
        wants = algorithm.operands(problem, self.target, choice.knobs)
        knobs = dict(choice.knobs)
        cycles = algorithm.cycles(problem, self.target, knobs)
        knobs["parallel"] = int(cycles > _PARALLEL_CYCLES)
        arguments = [self._read(node.inputs[0], wants.data.block, wants.border)]
        if problem.constant_weight:
            packed = algorithm.pack(self.graph[node.inputs[1]].value, problem, knobs)
            arguments.append(self._weight(f"{node.name}.weight", packed))
        else:
            arguments.append(self._read(node.inputs[1], 0))
        block = wants.result.block
        extras = iter(node.inputs[2:])
        for step in problem.epilogue:
            if step.name == "bias":
                arguments.append(self._bias(next(extras), block))
            elif step.takes_operand:
                arguments.append(_split(self._read(next(extras), block), wants))
        arguments.append(_split(self._write(node), wants))
        kernel = conv_kernel(algorithm, problem, self.target, knobs, [a.view for a in arguments])
        self._call(
            Call(
                kernel,
                tuple(arguments),
                node.name,
                node.op,
                choice.algorithm,
                choice.reason,
                choice.knobs,
                problem.spec.key,
                problem.spec.flops,
            )
        )

    def _call(self, call: Call) -> None:
        """Append a call, unless its result has no elements: then there is nothing to compute."""
        if math.prod(call.arguments[-1].view.shape):
            self.calls.append(call)

    def _packs(self, node: Node) -> bool:
        return self.graph[node.inputs[1]].op == CONSTANT and node.type.dtype == "float32"

    def _dense(self, node: Node) -> None:
        attributes = node.attributes
        assert isinstance(attributes, DenseAttributes)
        data, weight = self.graph[node.inputs[0]].type, self.graph[node.inputs[1]]
        knobs = dense.knobs(data.shape, node.type.shape[1], self.target)
        packed = dense.pack(weight.value, knobs)
        arguments = [
            self._read(node.inputs[0], 0),
            self._weight(f"{node.name}.weight", packed),
            *(self._read(extra, 0) for extra in node.inputs[2:]),
            self._write(node),
        ]
        kernel = dense_kernel(
            data.shape,
            node.type.shape[1],
            data.dtype,
            attributes.epilogue,
            self.target,
            knobs,
            [a.view for a in arguments],
        )
        flops = 2 * data.size * node.type.shape[1]
        call = Call(
            kernel, tuple(arguments), node.name, node.op, "dense", "the only one", knobs, "", flops
        )
        self._call(call)

    def _other(self, unit: Unit) -> None:
        block = self.layouts.block[unit.result.name]
        elementwise = all(OPS[n.op].elementwise for n in unit.nodes)
        literals = literals_of(self.graph, unit) if elementwise else {}
        operands = [i for i in unit.operands if i not in literals]
        arguments = [self._read(i, block) for i in operands]
        arguments.append(self._write(unit.result))
        views = [a.view for a in arguments]
        kernel = unit_kernel(self.graph, unit, block, self.target, views, literals)
        op = "+".join(n.op for n in unit.nodes)
        self._call(Call(kernel, tuple(arguments), unit.result.name, op))

    def _reshape(self, node: Node) -> None:
        """A reshape of plain data is the same bytes under another shape."""
        source = self._read(node.inputs[0], 0)
        self.places[node.name] = {0: source.buffer}
        self.layouts.primary[node.name] = PLAIN

    # ---- memory -------------------------------------------------------------------------------------------------

    def _read(self, value: str, block: int, border: Halo | None = None) -> Argument:
        """Return the value in the wanted block, converting it first if nobody did."""
        node = self.graph[value]
        if node.op == CONSTANT and value not in self.places:
            return self._constant(node, block)
        if block not in self.places[value]:
            self._convert(node, block)
        layout = self.layouts.of(value, block)
        view = layout.view(node.type.shape, node.type.dtype, border)
        return Argument(self.places[value][block], view)

    def _write(self, node: Node) -> Argument:
        """Return fresh memory for a unit's result, its halo zeroed."""
        layout = self.layouts.primary[node.name]
        shape, dtype = node.type.shape, node.type.dtype
        if layout == PLAIN and node.name in self.outputs:
            buffer = self.outputs[node.name]
        else:
            buffer = self._arena(node.name, layout.nbytes(shape, dtype))
            self._zero_border(node, layout, buffer)
        self.places[node.name] = {layout.block: buffer}
        return Argument(buffer, layout.view(shape, dtype))

    def _arena(self, stem: str, nbytes: int) -> Buffer:
        """Return a new buffer; the number keeps a value apart from another one's copy that is called like it."""
        self.buffers += 1
        return Buffer(f"{stem}#{self.buffers}", "arena", nbytes)

    def _convert(self, node: Node, block: int) -> None:
        """Bring a value from the block it was written in to another one."""
        shape, dtype = node.type.shape, node.type.dtype
        source, result = self.layouts.primary[node.name], self.layouts.of(node.name, block)
        places = self.places[node.name]
        if source.same_bytes(result, shape):
            places[block] = places[source.block]
            return
        if block == 0 and node.name in self.outputs:
            buffer = self.outputs[node.name]
        else:
            buffer = self._arena(f"{node.name}:{result}", result.nbytes(shape, dtype))
        self._zero_border(node, result, buffer)
        arguments = (
            Argument(places[source.block], source.view(shape, dtype)),
            Argument(buffer, result.view(shape, dtype)),
        )
        views = [a.view for a in arguments]
        kernel = reorder_kernel(node.type, source.block, block, self.target, views)
        self._move(kernel, arguments, node, f"{source} -> {result}")
        places[block] = buffer

    def _zero_border(self, node: Node, layout: Layout, buffer: Buffer) -> None:
        views = layout.bands(node.type.shape, node.type.dtype)
        if views:
            arguments = tuple(Argument(buffer, view) for view in views)
            self._move(border_kernel(views, self.target), arguments, node, f"halo {layout.halo}")

    def _move(
        self, kernel: Kernel, arguments: tuple[Argument, ...], node: Node, reason: str
    ) -> None:
        op = "border" if kernel.symbol.startswith("border") else "reorder"
        self._call(Call(kernel, arguments, node.name, op, reason=reason))

    def _deliver(self, node: Node, index: int) -> None:
        """Copy an output that was not written into the caller's memory: an input, a constant, a reshape, a second name."""
        value = self._read(node.name, 0)
        if value.buffer.space == "output" and value.buffer.index == index:
            return
        buffer = Buffer(f"output{index}", "output", node.type.nbytes, index)
        result = Argument(buffer, PLAIN.view(node.type.shape, node.type.dtype))
        kernel = reorder_kernel(node.type, 0, 0, self.target, [value.view, result.view])
        self._move(kernel, (value, result), node, "copy to output")

    # ---- constants ----------------------------------------------------------------------------------------------

    def _weight(self, name: str, array: np.ndarray) -> Argument:
        array = np.asarray(array, order="C")  # ascontiguousarray would make one dimension of none
        buffer = Buffer(name, "weights", array.nbytes)
        self.weights.setdefault(name, array)
        return Argument(buffer, PLAIN.view(array.shape, str(array.dtype)))

    def _constant(self, node: Node, block: int) -> Argument:
        if not block:
            return self._weight(f"{node.name}:plain", node.value)
        physical = Layout(block).physical(node.type.shape)
        n, cb, h, w, b = physical
        padded = np.zeros((n, cb * b, h, w), numpy_dtype(node.type.dtype))
        padded[:, : node.type.shape[1]] = node.value
        blocked = padded.reshape(n, cb, b, h, w).transpose(0, 1, 3, 4, 2)
        return self._weight(f"{node.name}:{block}", blocked)

    def _bias(self, value: str, block: int) -> Argument:
        """Return a bias as (blocks, block), or (K,) for plain kernels."""
        node = self.graph[value]
        if not block:
            return self._read(value, 0)
        channels = node.type.shape[0]
        blocks = -(-channels // block)
        if node.op == CONSTANT:
            padded = np.zeros(blocks * block, numpy_dtype(node.type.dtype))
            padded[:channels] = node.value
            return self._weight(f"{value}:bias{block}", padded.reshape(blocks, block))
        source = self._read(value, 0)
        if channels % block == 0:
            return Argument(source.buffer, View((blocks, block), (block, 1), 0, node.type.dtype))
        return self._padded_bias(node, source, blocks, block)

    def _padded_bias(self, node: Node, source: Argument, blocks: int, block: int) -> Argument:
        """Copy a bias that is known only at run time into whole blocks: the same move as for an image of one point."""
        image = type(node.type)((1, node.type.shape[0], 1, 1), node.type.dtype)
        layout = Layout(block)
        buffer = self._arena(f"{node.name}:bias{block}", layout.nbytes(image.shape, image.dtype))
        arguments = (
            Argument(source.buffer, PLAIN.view(image.shape, image.dtype)),
            Argument(buffer, layout.view(image.shape, image.dtype)),
        )
        kernel = reorder_kernel(image, 0, block, self.target, [a.view for a in arguments])
        self._move(kernel, arguments, node, "bias to blocks")
        return Argument(buffer, View((blocks, block), (block, 1), 0, node.type.dtype))


def _split(argument: Argument, wants: Operands) -> Argument:
    if wants.split is None:
        return argument
    return Argument(argument.buffer, argument.view.split(*wants.split))
