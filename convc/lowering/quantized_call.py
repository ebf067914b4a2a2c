"""The call of a convolution of bytes: weights packed now, data and weights seen as quads where the instruction reads them so."""

from __future__ import annotations

import numpy as np
from tvm import te, tirx

from convc.ir.graph import Graph, Node
from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.lowering.convolution_calls import seen
from convc.lowering.named_kernel import named_kernel
from convc.lowering.places import Places
from convc.lowering.program import Argument, Call
from convc.schedules import quantized_phases
from convc.schedules.algorithm import Operands
from convc.schedules.backend import backend_of
from convc.schedules.plan import Plan
from convc.schedules.quantized_algorithm import quantized_layer
from convc.target import Target

__all__ = ["quantized_call"]


def quantized_call(
    graph: Graph, node: Node, wants: Operands, places: Places, plan: Plan, target: Target
) -> Call:
    """Return the call that computes a node that an algorithm takes, whose operands are in the orders that `wants` names."""
    attributes = node.attributes
    assert isinstance(attributes, QuantizedConvAttributes)
    taken = quantized_layer(graph, node, target, plan)
    assert taken is not None
    assert taken.algorithm is not None
    spec, algorithm = taken.posed, taken.algorithm
    _, weight, bias, *_ = graph.operands(node)

    def own(argument: Argument, split: tuple[int, ...] | None = None) -> Argument:
        """Return an image as the kernel sees it."""
        view = seen(argument, wants.result, split).view
        return Argument(argument.buffer, view if spec == taken.spec else view.in_one_row())

    factor = None if attributes.dynamic else graph[node.inputs[3]].value
    more = algorithm.of_layer(spec, attributes, taken.knobs, factor, target)
    knobs = {**taken.knobs, **more}
    packed = algorithm.pack(weight.value, spec, knobs)
    least = backend_of(target).parallel_cycles
    if least is not None:
        knobs["parallel"] = int(algorithm.cycles(spec, target, knobs) > least)
    read = places.read(node.inputs[0], wants.data.block, wants.border, fill=attributes.pad)
    view = own(read).view
    written, block = places.write(node), wants.result.block
    if spec.transposed:
        biases = quantized_phases.biases(bias.value, weight.value, spec, attributes.pad)
        added = places.weight(f"{node.name}.bias", _in_blocks(biases, block))
    else:
        added = places.bias(node.inputs[2], block)
    if attributes.dynamic:
        others = [places.read(node.inputs[4], 0)]
    else:
        others = [own(places.read(i, block), wants.split) for i in node.inputs[4:]]
    arguments = (
        Argument(read.buffer, algorithm.as_read(view, knobs)),
        places.weight(f"{node.name}.weight", packed),
        added,
        places.bias(node.inputs[3], block),
        *others,
        own(written, wants.split),
    )

    def make() -> tirx.PrimFunc:
        tensors = algorithm.compute(spec, attributes, target, knobs)
        func = te.create_prim_func(list(tensors))
        return backend_of(target).schedules[algorithm.name](func, knobs, target)

    stem = f"{algorithm.name}_{spec.key.split('-pd')[0]}"
    parts = (spec.key, attributes, sorted(knobs.items()))
    kernel = named_kernel(stem, parts, [a.view for a in arguments], make)
    reason = algorithm.reason(knobs)
    return Call(
        kernel, arguments, node.name, node.op, algorithm.name, reason, knobs, spec.key, spec.flops
    )


def _in_blocks(bias: np.ndarray, block: int) -> np.ndarray:
    """Return (..., K) as (..., blocks, block), padded with zeros."""
    *phases, channels = bias.shape
    padded = np.zeros((*phases, -(-channels // block) * block), bias.dtype)
    padded[..., :channels] = bias
    return padded.reshape(*phases, -1, block)
