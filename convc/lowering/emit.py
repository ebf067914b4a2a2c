"""(Graph, Plan, Target) -> Program: give every value its memory and every unit its kernel, in order."""

from __future__ import annotations

import math
from dataclasses import replace

from convc.ir.channel_moves import Picks, picks_of
from convc.ir.graph import Graph, Node
from convc.ir.ops import OPS
from convc.lowering.gated_weights import scaling_call
from convc.lowering.kernels import (
    bottleneck_kernel,
    conv_kernel,
    literals_of,
    packing_kernel,
    unit_kernel,
    weight_gradient_kernel,
)
from convc.lowering.layouts import (
    Layouts,
    assign_layouts,
    chain_of,
    chain_of_nodes,
    chosen_op,
    gradient_row,
    joins_blocks,
    quantized_operands,
)
from convc.lowering.moves import channel_kernel
from convc.lowering.partition import Unit, partition
from convc.lowering.places import Places
from convc.lowering.product_calls import product_calls
from convc.lowering.products import product_of
from convc.lowering.program import Argument, Call, Program
from convc.lowering.quantized_call import quantized_call
from convc.lowering.stored import narrowed, widened
from convc.schedules import bottleneck, bottleneck_model, gated, packing
from convc.schedules.algorithm import Algorithm, Operands, Problem
from convc.schedules.backend import backend_of
from convc.schedules.dual import dual_weight
from convc.schedules.layout import Layout
from convc.schedules.op_choice import OWN, op_key
from convc.schedules.plan import Chain, Knobs, Plan
from convc.schedules.select import is_convolution, problem_for
from convc.schedules.weight_gradients import WeightGradient, weight_gradient_spec
from convc.target import Target

__all__ = ["emit"]


def emit(graph: Graph, plan: Plan, target: Target) -> Program:
    """Return the program of a graph."""
    return _Emitter(graph, plan, target).run()


class _Emitter:
    """Walks the units once."""

    def __init__(self, graph: Graph, plan: Plan, target: Target) -> None:
        self.graph, self.plan, self.target = graph, plan, target
        self.backend = backend_of(target)
        self.units = partition(graph, plan.chains)
        self.layouts: Layouts = assign_layouts(graph, self.units, plan, target)
        self.calls: list[Call] = []
        self.places = Places(graph, self.layouts, target, self._call)

    def run(self) -> Program:
        for unit in self.units:
            self._unit(unit)
        for index, output in enumerate(self.graph.outputs):
            self.places.deliver(self.graph[output.value], index)
        signature = [(n.name, n.type.shape, n.type.dtype) for n in self.graph.inputs]
        results = [
            (o.name, self.graph[o.value].type.shape, self.graph[o.value].type.dtype)
            for o in self.graph.outputs
        ]
        return Program(
            self.graph.name,
            tuple(signature),
            tuple(results),
            tuple(self.calls),
            self.places.weights,
            {o.name: (o.count, o.axis) for o in self.graph.outputs if o.count},
        )

    # ---- units --------------------------------------------------------------------------------------------------

    def _unit(self, unit: Unit) -> None:
        node = unit.result
        if node.op == "reshape":
            self.places.alias(node, node.inputs[0])
        elif joins_blocks(self.graph, node, block := self.layouts.block[node.name]):
            self.places.concatenate(node, block)
        elif block and (picks := picks_of(node, [n.type for n in self.graph.operands(node)])):
            self._channels(node, picks, block)
        elif (chain := chain_of(self.plan, unit)) is not None and chain.kind != gated.NAME:
            self._chain(unit, chain)
        elif is_convolution(node):
            self._convolution(node, unit.nodes[0] if chain is not None else None)
        elif (row := gradient_row(node, self.plan, self.target)) is not None:
            self._weight_gradient(node, row)
        elif (product := product_of(self.graph, node, self.target)) is not None:
            for call in product_calls(self.graph, node, product, self.places, self.target):
                self._call(call)
        elif (wants := quantized_operands(self.graph, node, self.target)) is not None:
            self._call(quantized_call(self.graph, node, wants, self.places, self.target))
        else:
            self._other(unit)

    def _chain(self, unit: Unit, chain: Chain) -> None:
        posed, knobs = chain_of_nodes(self.graph, unit), dict(chain.knobs)
        wants = bottleneck.operands(posed, knobs)
        if self.backend.parallel_cycles is not None:
            cycles = bottleneck_model.cycles(posed, self.target, knobs)
            knobs["parallel"] = int(cycles > self.backend.parallel_cycles)
        data = self.places.read(unit.nodes[0].inputs[0], wants.data.block, wants.border)
        arguments = [_seen(data, wants.data)]
        stored = posed.depthwise.stored
        values = [widened(self.graph[node.inputs[1]].value) for node in unit.nodes]
        packed = bottleneck.pack(values, posed, knobs)
        for node, problem, weight in zip(unit.nodes, posed.layers, packed, strict=True):
            arguments.append(self.places.weight(f"{node.name}.weight", narrowed(weight, stored)))
            last = node is unit.result
            block = wants.result.block if last else knobs["block"]
            arguments += self._extras(
                node, problem, Operands(wants.data, wants.border, Layout(block))
            )
        node = unit.result
        arguments.append(_seen(self.places.write(node), wants.result))
        kernel = bottleneck_kernel(posed, self.target, knobs, [a.view for a in arguments])
        key = " > ".join(problem.stored_spec.key for problem in posed.layers)
        self._call(
            Call(kernel, tuple(arguments), node.name, node.op, "bottleneck", chain.reason, chain.knobs, key, posed.flops)
        )  # fmt: skip

    def _extras(self, node: Node, problem: Problem, wants: Operands) -> list[Argument]:
        """Return the operands of a convolution's epilogue."""
        arguments, extras = [], iter(node.inputs[2:])
        for step in problem.epilogue:
            if step.name == "bias":
                arguments.append(self.places.bias(next(extras), wants.result.block))
            elif step.takes_operand:
                residual = self.places.read(next(extras), wants.result.block)
                arguments.append(_seen(residual, wants.result, wants.split))
        return arguments

    def _convolution(self, node: Node, gate: Node | None) -> None:
        """Emit a convolution; of data that `gate` scales by channel, with its weights scaled, see `gated`."""
        choice = self.plan[node.name]
        algorithm = self.backend.algorithm(choice.algorithm)
        problem = problem_for(self.graph, node, algorithm, self.target)
        wants = algorithm.operands(problem, self.target, choice.knobs)
        knobs = dict(choice.knobs)
        if self.backend.parallel_cycles is not None:
            cycles = algorithm.cycles(problem, self.target, knobs)
            knobs["parallel"] = int(cycles > self.backend.parallel_cycles)
        source, scale = (
            gated.gate_of(self.graph, gate) if gate is not None else (node.inputs[0], "")
        )
        data = self.places.read(source, wants.data.block, wants.border)
        seen = _seen(data, wants.data)
        arguments = [Argument(seen.buffer, seen.view.pairs()) if knobs.get("pairs") else seen]
        weight = self._weight(node, algorithm, problem, knobs)
        if gate is not None:
            weight = self._scaled(gate, weight, self.places.read(scale, wants.data.block))
            knobs["per_image"] = 1
        arguments.append(weight)
        arguments += self._extras(node, problem, wants)
        arguments.append(_seen(self.places.write(node), wants.result, wants.split))
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
                problem.stored_spec.key,
                problem.spec.flops,
            )
        )

    def _weight_gradient(self, node: Node, row: WeightGradient) -> None:
        spec, choice = weight_gradient_spec(self.graph, node), self.plan.gradients[node.name]
        knobs = dict(choice.knobs)
        wants = row.operands(spec, knobs)
        if self.backend.parallel_cycles is not None:
            cycles = row.cycles(spec, self.target)
            knobs["parallel"] = int(cycles > self.backend.parallel_cycles)
        data = self.places.read(node.inputs[0], wants.data.block, wants.border)
        layout = row.gradient_layout(knobs)
        gradient = self.places.read(node.inputs[1], layout.block)
        arguments = (_seen(data, wants.data), _seen(gradient, layout), self.places.write(node))
        views = [a.view for a in arguments]
        kernel = weight_gradient_kernel(row, spec, self.target, knobs, views)
        self._call(
            Call(
                kernel,
                arguments,
                node.name,
                node.op,
                choice.algorithm,
                choice.reason,
                choice.knobs,
                spec.key,
                spec.flops,
            )
        )

    def _weight(self, node: Node, algorithm: Algorithm, problem: Problem, knobs: Knobs) -> Argument:
        """Return the weight as the kernel reads it: packed now, or by a step of its own each run."""
        if problem.constant_weight:
            value = self.graph[node.inputs[1]].value
            if problem.stored:
                value = widened(value)
            if problem.dual:
                value = dual_weight(value, problem.spec.group)
            packed = narrowed(algorithm.pack(value, problem, knobs), problem.stored)
            return self.places.weight(f"{node.name}.weight", packed)
        plain = self.places.read(node.inputs[1], 0)
        tensors = packing.compute(algorithm.name, problem, knobs)
        if tensors is None:
            return plain
        shape = tuple(int(extent) for extent in tensors[1].shape)
        packed = self.places.scratch(f"{node.name}.weight", shape, problem.spec.dtype)
        cycles = packing.cycles(algorithm.name, problem, knobs)
        threads = {**knobs, "parallel": int(cycles > (self.backend.parallel_cycles or 0))}
        views = [plain.view, packed.view]
        kernel = packing_kernel(algorithm.name, problem, self.target, threads, views)
        self._call(
            Call(
                kernel,
                (plain, packed),
                node.name,
                "pack",
                algorithm.name,
                "weights known at run time",
            )
        )
        return packed

    def _scaled(self, gate: Node, weight: Argument, scale: Argument) -> Argument:
        """Return the weights of every image, scaled by a step of its own."""
        shape = (gate.type.shape[0], *weight.view.shape)
        made = self.places.scratch(f"{gate.name}.weight", shape, gate.type.dtype)
        self._call(scaling_call(gate, weight, scale, made, self.target))
        return made

    def _call(self, call: Call) -> None:
        """Append a call, unless its result has no elements: then there is nothing to compute."""
        if math.prod(call.arguments[-1].view.shape):
            self.calls.append(call)

    def _other(self, unit: Unit) -> None:
        block = self.layouts.block[unit.result.name]
        elementwise = all(OPS[n.op].elementwise for n in unit.nodes)
        literals = literals_of(self.graph, unit) if elementwise else {}
        operands = [i for i in unit.operands if i not in literals]
        arguments = [self.places.read(i, block) for i in operands]
        arguments.append(self.places.write(unit.result))
        views = [a.view for a in arguments]
        algorithm = chosen_op(unit, self.plan, self.target)
        kernel = unit_kernel(self.graph, unit, block, self.target, views, literals, algorithm)
        op = "+".join(n.op for n in unit.nodes)
        call = Call(kernel, tuple(arguments), unit.result.name, op)
        self._call(self._explained(call, unit.result))

    def _channels(self, node: Node, picks: Picks, block: int) -> None:
        arguments = [self.places.read(i, block) for i in node.inputs]
        arguments.append(self.places.write(node))
        kernel = channel_kernel(picks, block, self.target, [a.view for a in arguments])
        self._call(Call(kernel, tuple(arguments), node.name, node.op))

    def _explained(self, call: Call, node: Node) -> Call:
        """Return the call of a node that is no convolution with what the plan says about it, if it does."""
        if node.name in self.plan.gradients:
            said, spec = self.plan.gradients[node.name], weight_gradient_spec(self.graph, node)
            name, key, flops = said.algorithm, spec.key, spec.flops
        elif node.name in self.plan.operations:
            said, key, flops = self.plan.operations[node.name], op_key(self.graph, node), 0
            name = "" if said.algorithm == OWN else said.algorithm
        else:
            return call
        return replace(
            call, algorithm=name, reason=said.reason, knobs=said.knobs, spec=key, flops=flops
        )


def _seen(argument: Argument, layout: Layout, split: tuple[int, ...] | None = None) -> Argument:
    """Return an image as kernels of convolutions see it: blocked 1-D ones with a height of 1, rows and columns split."""
    view = argument.view
    if layout.block:
        view = view.raised()
    return Argument(argument.buffer, view.split(*split) if split else view)
