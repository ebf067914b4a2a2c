"""(Graph, Plan, Target) -> Program: give every value its memory and every unit its kernel, in order."""

from __future__ import annotations

from dataclasses import replace

from convc.ir.channel_moves import Picks, picks_of
from convc.ir.graph import Graph, Node
from convc.ir.ops import OPS
from convc.lowering.convolution_calls import Calls, ConvolutionCalls, seen
from convc.lowering.homes import joins_blocks
from convc.lowering.kernels import (
    bottleneck_kernel,
    literals_of,
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
)
from convc.lowering.moves import channel_kernel, channels_last_kernel, permutation_kernel
from convc.lowering.partition import Unit, partition
from convc.lowering.parts import first_byte
from convc.lowering.places import Places
from convc.lowering.product_calls import product_calls, reshaped
from convc.lowering.products import product_of
from convc.lowering.program import Argument, Call, Program
from convc.lowering.quantized_call import quantized_call
from convc.lowering.stored import narrowed, widened
from convc.lowering.turned import Turned
from convc.schedules import bottleneck, bottleneck_model, gated, permutation, pooled
from convc.schedules.algorithm import Operands
from convc.schedules.backend import backend_of
from convc.schedules.following import comes_first, goes_last, quantized_operands
from convc.schedules.layout import Layout
from convc.schedules.op_choice import OWN, op_key
from convc.schedules.operators import OPERATORS, OpAlgorithm
from convc.schedules.plan import Chain, Choice, Plan
from convc.schedules.select import is_convolution
from convc.schedules.weight_gradient_problem import weight_gradient_spec
from convc.schedules.weight_gradients import PLAIN_LOOPS, weight_gradient_named
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
        self.turned = Turned.of(graph, target)
        self.calls = Calls()
        self.places = Places(graph, self.layouts, target, self.calls.add)
        self.convolutions = ConvolutionCalls(graph, plan, target, self.places, self.calls)

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
            tuple(self.calls.made),
            self.places.weights,
            {o.name: (o.count, o.axis) for o in self.graph.outputs if o.count},
        )

    # ---- units --------------------------------------------------------------------------------------------------

    def _unit(self, unit: Unit) -> None:
        node = unit.result
        if node.name in self.turned.skipped:
            return
        if node.op == "reshape":
            self.places.alias(node, node.inputs[0])
        elif joins_blocks(self.graph, node, block := self.layouts.block[node.name]):
            self.places.concatenate(node, block)
        elif node.op == "slice" and node.name in self.layouts.homes:
            self.places.write(node)
        elif not block and (first := first_byte(self.graph, node)) is not None:
            self.places.alias(node, node.inputs[0], first)
        elif goes_last(node, self.target) and (b := self.layouts.primary[node.inputs[0]].block) > 1:
            self._turn(node, b, 0)
        elif comes_first(node, self.target) and block:
            self._turn(node, 0, block)
        elif node.op == "transpose" and "permutation" in self.backend.schedules:
            self._permute(node)
        elif block and (picks := picks_of(node, [n.type for n in self.graph.operands(node)])):
            self._channels(node, picks, block)
        elif (chain := chain_of(self.plan, unit)) is not None and chain.kind == pooled.NAME:
            self.convolutions.emit_pooled(unit, chain)
        elif chain is not None and chain.kind != gated.NAME:
            self._chain(unit, chain)
        elif is_convolution(node):
            self.convolutions.emit(node, unit.nodes[0] if chain is not None else None)
        elif gradient_row(node, self.plan, self.target) is not None:
            self._weight_gradient(node)
        elif (product := product_of(self.graph, node, self.target)) is not None:
            for call in product_calls(
                self.graph, node, product, self.places, self.target, self.turned
            ):
                self.calls.add(call)
        elif (wants := quantized_operands(self.graph, node, self.target, self.plan)) is not None:
            self.calls.add(
                quantized_call(self.graph, node, wants, self.places, self.plan, self.target)
            )
        else:
            self._other(unit)

    def _chain(self, unit: Unit, chain: Chain) -> None:
        posed, own = chain_of_nodes(self.graph, unit), chain.knobs
        wants = bottleneck.operands(posed, own)
        knobs = {
            **own,
            **self.backend.threads(lambda t: bottleneck_model.cycles(posed, t, own), self.target),
        }
        data = self.places.read(unit.nodes[0].inputs[0], wants.data.block, wants.border)
        arguments = [seen(data, wants.data)]
        stored = posed.depthwise.stored
        values = [widened(self.graph[node.inputs[1]].value) for node in unit.nodes]
        packed = bottleneck.pack(values, posed, knobs)
        for node, problem, weight in zip(unit.nodes, posed.layers, packed, strict=True):
            arguments.append(self.places.weight(f"{node.name}.weight", narrowed(weight, stored)))
            last = node is unit.result
            block = wants.result.block if last else knobs["block"]
            arguments += self.convolutions.extras(
                node, problem, Operands(wants.data, wants.border, Layout(block))
            )
        node = unit.result
        arguments.append(seen(self.places.write(node), wants.result))
        kernel = bottleneck_kernel(posed, self.target, knobs, [a.view for a in arguments])
        key = " > ".join(problem.stored_spec.key for problem in posed.layers)
        self.calls.add(
            Call(kernel, tuple(arguments), node.name, node.op, "bottleneck", chain.reason, chain.knobs, key, posed.flops)
        )  # fmt: skip

    def _weight_gradient(self, node: Node) -> None:
        choice, result = self.plan.gradients[node.name], self.places.write(node)
        own = choice.otherwise
        if own is None:
            self.calls.add(self._gradient_call(node, choice, result))
            return
        with self.calls.aside() as made:
            if own.algorithm == PLAIN_LOOPS:
                self.calls.add(self._loops(node, own, result))
            else:
                self.calls.add(self._gradient_call(node, own, result, beside=True))
        call = self._gradient_call(node, choice, result, falls=True)
        self.calls.add(replace(call, otherwise=tuple(made)))

    def _loops(self, node: Node, own: Choice, result: Argument) -> Call:
        """Return the call of a weight gradient's own computation, beside a library's."""
        arguments = (*(self.places.apart(i, 0) for i in node.inputs), result)
        views = [a.view for a in arguments]
        kernel = unit_kernel(self.graph, Unit((node,)), 0, self.target, views, {})
        spec = weight_gradient_spec(self.graph, node)
        return Call(kernel, arguments, node.name, node.op, own.algorithm, own.reason, {}, spec.key, spec.flops)  # fmt: skip

    def _gradient_call(
        self,
        node: Node,
        choice: Choice,
        result: Argument,
        *,
        beside: bool = False,
        falls: bool = False,
    ) -> Call:
        """Return a weight gradient's call; `beside` a library's, which `falls` is."""
        spec, own = weight_gradient_spec(self.graph, node), choice.knobs
        row = weight_gradient_named(choice.algorithm, self.target)
        wants, layout = row.operands(spec, own), row.gradient_layout(own)
        knobs = {**own, **self.backend.threads(lambda t: row.cycles(spec, t, own), self.target)}
        x, dy = node.inputs
        if beside:
            assert not wants.border, f"{row.NAME} must read no halo beside a library's call"
            data, gradient = (
                self.places.apart(x, wants.data.block),
                self.places.apart(dy, layout.block),
            )
        else:
            data, gradient = (
                self.places.read(x, wants.data.block, wants.border),
                self.places.read(dy, layout.block),
            )
        arguments = (seen(data, wants.data), seen(gradient, layout), result)
        views = [a.view for a in arguments]
        kernel = weight_gradient_kernel(row, spec, self.target, knobs, views, falls=falls)
        return Call(
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

    def _other(self, unit: Unit) -> None:
        block = self.layouts.block[unit.result.name]
        elementwise = all(OPS[n.op].elementwise for n in unit.nodes)
        literals = literals_of(self.graph, unit) if elementwise else {}
        operands = [i for i in unit.operands if i not in literals]
        tables = OPERATORS[unit.result.op].tables if len(unit.nodes) == 1 else None
        plain = set(unit.result.inputs[tables:]) if tables is not None else set()
        arguments = [self.places.read(i, 0 if i in plain else block) for i in operands]
        arguments.append(self.places.write(unit.result))
        views = [a.view for a in arguments]
        algorithm = chosen_op(unit, self.plan, self.target)
        op = "+".join(n.op for n in unit.nodes)

        def call(algorithm: OpAlgorithm | None, falls: bool = False) -> Call:
            kernel = unit_kernel(self.graph, unit, block, self.target, views, literals, algorithm, falls=falls)  # fmt: skip
            return Call(kernel, tuple(arguments), unit.result.name, op)

        if self._falls(unit.result, block):
            own = replace(call(None), algorithm=OWN, reason="the op's own computation")
            made = replace(call(algorithm, falls=True), otherwise=(own,))
        else:
            made = call(algorithm)
        self.calls.add(self._explained(made, unit.result))

    def _falls(self, node: Node, block: int) -> bool:
        """Whether a library computes the node, and the op's own computation in the same memory stands beside it."""
        choice = self.plan.operations.get(node.name)
        if choice is None or choice.otherwise is None:
            return False
        types = [n.type for n in self.graph.operands(node)]
        return not block or OPERATORS[node.op].follows(node, types, block)

    def _channels(self, node: Node, picks: Picks, block: int) -> None:
        arguments = [self.places.read(i, block) for i in node.inputs]
        arguments.append(self.places.write(node))
        kernel = channel_kernel(picks, block, self.target, [a.view for a in arguments])
        self.calls.add(Call(kernel, tuple(arguments), node.name, node.op))

    def _turn(self, node: Node, source: int, result: int) -> None:
        """Bring an image's channels behind it from blocks, or into blocks from behind."""
        arguments = (self.places.read(node.inputs[0], source), self.places.write(node))
        views = [a.view for a in arguments]
        kernel = channels_last_kernel(source or result, self.target, views)
        self.calls.add(Call(kernel, arguments, node.name, node.op))

    def _permute(self, node: Node) -> None:
        """Transpose a plain value; where only axes of one element move its bytes stay."""
        shape, perm = permutation.shortest(
            self.graph[node.inputs[0]].type.shape,
            node.attributes.perm,  # type: ignore[attr-defined]
        )
        if not shape:
            self.places.alias(node, node.inputs[0])
            return
        data, result = self.places.read(node.inputs[0], 0), self.places.write(node)
        arguments = (reshaped(data, shape), reshaped(result, tuple(shape[p] for p in perm)))
        kernel = permutation_kernel(shape, perm, self.target, [a.view for a in arguments])
        self.calls.add(Call(kernel, arguments, node.name, node.op))

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
