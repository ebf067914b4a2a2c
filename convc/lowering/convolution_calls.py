"""The calls of a convolution: its operands as the algorithm wants them, its weight packed, and what stands beside a library's call.

convolution by cuDNN, nobody has pinned it
-->
[convert data]; cudnn(data, weight, ..., result)    otherwise [convert data]; own(data, own weight, ..., result); [convert result]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from convc.ir.graph import Graph, Node
from convc.lowering.gated_weights import scaling_call
from convc.lowering.kernels import conv_kernel, packing_kernel
from convc.lowering.partition import Unit
from convc.lowering.places import Places
from convc.lowering.pooled_step import PooledStep
from convc.lowering.program import Argument, Call
from convc.lowering.stored import narrowed, widened
from convc.schedules import gated, packing
from convc.schedules.algorithm import Algorithm, Operands, Problem
from convc.schedules.backend import backend_of
from convc.schedules.dual import dual_weight
from convc.schedules.layout import Layout
from convc.schedules.library_algorithm import NarrowBias, Refusable
from convc.schedules.plan import Chain, Choice, Knobs, Plan
from convc.schedules.select import problem_for
from convc.target import Target

__all__ = ["Calls", "ConvolutionCalls", "seen"]


class Calls:
    """Calls as they are emitted, in order."""

    def __init__(self) -> None:
        self.made: list[Call] = []

    def add(self, call: Call) -> None:
        """Append a call, unless its result has no elements: then there is nothing to compute."""
        if math.prod(call.arguments[-1].view.shape):
            self.made.append(call)

    @contextmanager
    def aside(self) -> Iterator[list[Call]]:
        """Collect what is emitted meanwhile in a list of its own."""
        kept, self.made = self.made, []
        try:
            yield self.made
        finally:
            self.made = kept


class ConvolutionCalls:
    """Emits the convolutions of a graph."""

    def __init__(
        self, graph: Graph, plan: Plan, target: Target, places: Places, calls: Calls
    ) -> None:
        self.graph, self.plan, self.target = graph, plan, target
        self.backend, self.places, self.calls = backend_of(target), places, calls

    def extras(
        self,
        node: Node,
        problem: Problem,
        wants: Operands,
        read: Callable[[str, int], Argument] | None = None,
        bias: str = "",
    ) -> list[Argument]:
        """Return the operands of a convolution's epilogue, residuals as `read` has them, a bias in the type that it must have."""
        read = read or self.places.read
        arguments, extras = [], iter(node.inputs[2:])
        for step in problem.epilogue:
            if step.name == "bias":
                arguments.append(self.places.bias(next(extras), wants.result.block, bias))
            elif step.takes_operand:
                residual = read(next(extras), wants.result.block)
                arguments.append(seen(residual, wants.result, wants.split))
        return arguments

    def emit(self, node: Node, gate: Node | None) -> None:
        """Emit a convolution; of data that `gate` scales by channel, with its weights scaled, see `gated`."""
        choice = self.plan[node.name]
        algorithm = self.backend.algorithm(choice.algorithm)
        problem = problem_for(self.graph, node, algorithm, self.target)
        wants = algorithm.operands(problem, self.target, choice.knobs)
        knobs = {
            **choice.knobs,
            **self.backend.threads(
                lambda t: algorithm.cycles(problem, t, choice.knobs), self.target
            ),
        }
        source, scale = (
            gated.gate_of(self.graph, gate) if gate is not None else (node.inputs[0], "")
        )
        arguments = [self._data(source, wants, knobs)]
        weight = self._weight(node, algorithm, problem, knobs)
        if gate is not None:
            weight = self._scaled(gate, weight, self.places.read(scale, wants.data.block))
            knobs["per_image"] = 1
        arguments.append(weight)
        narrow = algorithm if isinstance(algorithm, NarrowBias) else None
        dtype = node.type.dtype if narrow else ""
        arguments += self.extras(node, problem, wants, bias=dtype)
        arguments.append(seen(self.places.write(node), wants.result, wants.split))
        if narrow and any(self.graph[v].type.dtype != dtype for v in node.inputs[2:]):
            reason = f"{choice.reason}; {narrow.narrow_bias.format(dtype)}"
            choice = replace(choice, reason=reason)
        own = choice.otherwise if gate is None else None
        otherwise = () if own is None else self._otherwise(node, own, arguments[-1])
        self._add(node, choice, problem, knobs, arguments, otherwise)

    def emit_pooled(self, unit: Unit, chain: Chain) -> None:
        """Emit a convolution and the pool behind it, which one kernel computes."""
        step = PooledStep.of(self.graph, unit, chain, self.plan, self.target)
        layer, wants, posed, choice = step.layer, step.wants, step.posed, self.plan[step.layer.name]

        def read(residual: str, block: int) -> Argument:
            return self.places.read(residual, block, step.around)

        arguments = [
            self._data(layer.inputs[0], wants, step.knobs),
            self._weight(layer, step.algorithm, posed.layer, step.knobs),
            *self.extras(layer, posed.layer, wants, read),
            self.places.write(step.pool),
        ]
        self.calls.add(
            Call(
                step.kernel(self.target, [a.view for a in arguments]),
                tuple(arguments),
                layer.name,
                f"{layer.op}+{step.pool.op}",
                choice.algorithm,
                choice.reason,
                {**choice.knobs, **chain.knobs},
                posed.key,
                posed.layer.spec.flops,
            )
        )

    def _data(self, source: str, wants: Operands, knobs: Knobs) -> Argument:
        """Return the data as the kernel sees them, pairs of channels where it reads such."""
        data = seen(self.places.read(source, wants.data.block, wants.border), wants.data)
        return Argument(data.buffer, data.view.words(2)) if knobs.get("pairs") else data

    def _add(
        self,
        node: Node,
        choice: Choice,
        problem: Problem,
        knobs: Knobs,
        arguments: Sequence[Argument],
        otherwise: tuple[Call, ...] = (),
    ) -> None:
        algorithm, views = self.backend.algorithm(choice.algorithm), [a.view for a in arguments]
        kernel = conv_kernel(algorithm, problem, self.target, knobs, views, falls=bool(otherwise))
        self.calls.add(
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
                otherwise,
            )
        )

    def _otherwise(self, node: Node, own: Choice, result: Argument) -> tuple[Call, ...]:
        """Return the calls that leave a convolution's result where a library's call would, by an algorithm of convc's."""
        algorithm = self.backend.algorithm(own.algorithm)
        problem = problem_for(self.graph, node, algorithm, self.target)
        wants = algorithm.operands(problem, self.target, own.knobs)
        assert not wants.border, f"{own.algorithm} must read no halo beside a library's call"
        with self.calls.aside() as made:
            data = seen(self.places.apart(node.inputs[0], wants.data.block), wants.data)
            arguments = [data, self._weight(node, algorithm, problem, own.knobs)]
            arguments += self.extras(node, problem, wants, self.places.apart)
            if wants.result.block == self.places.layouts.primary[node.name].block:
                self._add(node, own, problem, own.knobs, [*arguments, result])
            else:
                elsewhere = self.places.fresh(node, wants.result)
                placed = seen(elsewhere, wants.result, wants.split)
                self._add(node, own, problem, own.knobs, [*arguments, placed])
                self.places.put(node, elsewhere, wants.result)
        return tuple(made)

    def _weight(self, node: Node, algorithm: Algorithm, problem: Problem, knobs: Knobs) -> Argument:
        """Return the weight as the kernel reads it: packed now, or by a step of its own each run."""
        if problem.constant_weight:
            value = self.graph[node.inputs[1]].value
            if problem.stored:
                value = widened(value)
            if problem.dual:
                value = dual_weight(value, problem.spec.group)
            packed = narrowed(algorithm.pack(value, problem, knobs), problem.stored)
            name = f"{node.name}.weight"
            known = self.places.weights.get(name)
            if known is not None and (
                known.dtype != packed.dtype or not np.array_equal(known, packed)
            ):
                name = f"{name}.{algorithm.name}"  # beside a library's
            return self.places.weight(name, packed)
        plain = self.places.read(node.inputs[1], 0)
        tensors = packing.compute(algorithm.name, problem, self.target, knobs)
        if tensors is None:
            return plain
        shape = tuple(int(extent) for extent in tensors[1].shape)
        packed = self.places.scratch(f"{node.name}.weight", shape, problem.spec.dtype)
        by_threads = self.backend.threads(
            lambda t: packing.cycles(algorithm.name, problem, t, knobs), self.target
        )
        threads = {**knobs, "parallel": 1, **by_threads}
        views = [plain.view, packed.view]
        # A library's name is that of the steps that call it.
        by = "" if isinstance(algorithm, Refusable) else algorithm.name
        kernel = packing_kernel(algorithm.name, problem, self.target, threads, views)
        self.calls.add(
            Call(
                kernel,
                (plain, packed),
                node.name,
                "pack",
                by,
                "weights known at run time",
            )
        )
        return packed

    def _scaled(self, gate: Node, weight: Argument, scale: Argument) -> Argument:
        """Return the weights of every image, scaled by a step of its own."""
        shape = (gate.type.shape[0], *weight.view.shape)
        made = self.places.scratch(f"{gate.name}.weight", shape, gate.type.dtype)
        self.calls.add(scaling_call(gate, weight, scale, made, self.target))
        return made


def seen(argument: Argument, layout: Layout, split: tuple[int, ...] | None = None) -> Argument:
    """Return an image as kernels of convolutions see it: blocked 1-D ones with a height of 1, rows and columns split."""
    view = argument.view
    if layout.block:
        view = view.raised()
    return Argument(argument.buffer, view.split(*split) if split else view)
