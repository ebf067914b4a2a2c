"""The call of a convolution of bytes: weights packed now, data and weights seen as quads where the instruction reads them so."""

from __future__ import annotations

import numpy as np
from tvm import te, tirx

from convc.ir.graph import Graph, Node
from convc.ir.ops.quantized import QuantizedConvAttributes, quantized_spec
from convc.lowering.convolution_calls import seen
from convc.lowering.named_kernel import named_kernel
from convc.lowering.places import Places
from convc.lowering.program import Argument, Call
from convc.schedules import quantized, quantized_phases
from convc.schedules.algorithm import Operands
from convc.schedules.backend import backend_of
from convc.schedules.layout import View
from convc.schedules.plan import Knobs
from convc.target import Target

__all__ = ["quantized_call"]


def quantized_call(
    graph: Graph, node: Node, wants: Operands, places: Places, target: Target
) -> Call:
    """Return the call that computes a node whose operands are in the orders that `wants` names."""
    attributes = node.attributes
    assert isinstance(attributes, QuantizedConvAttributes)
    data, weight, bias, *_ = graph.operands(node)
    given = quantized_spec(data.type, weight.type, attributes)
    spec = quantized.in_one_row(given)

    def own(argument: Argument, split: tuple[int, ...] | None = None) -> Argument:
        """Return an image as the kernel sees it."""
        view = seen(argument, wants.result, split).view
        return Argument(argument.buffer, view if spec == given else view.in_one_row())

    knobs = dict(quantized.knobs(spec, target))
    packed = quantized.pack(weight.value, spec, knobs)
    if quantized.clips(spec, attributes, knobs):
        knobs["clip"] = 1
    if attributes.dynamic:
        knobs["dynamic"] = 1
    else:
        factor = graph[node.inputs[3]].value
        knobs["packs"] = int(quantized.saturates(attributes, factor, target))
    least = backend_of(target).parallel_cycles
    if least is not None:
        knobs["parallel"] = int(quantized.cycles(spec, target, knobs) > least)
    read = places.read(node.inputs[0], wants.data.block, wants.border, fill=attributes.pad)
    view = own(read).view
    written = places.write(node)
    if spec.transposed:
        biases = quantized_phases.biases(bias.value, weight.value, spec, attributes.pad)
        added = places.weight(f"{node.name}.bias", _in_blocks(biases, knobs["block"]))
    else:
        added = places.bias(node.inputs[2], knobs["block"])
    if attributes.dynamic:
        others = [places.read(node.inputs[4], 0)]
    else:
        others = [own(places.read(i, knobs["block"]), wants.split) for i in node.inputs[4:]]
    arguments = (
        Argument(read.buffer, _as_read(view, knobs)),
        places.weight(f"{node.name}.weight", packed),
        added,
        places.bias(node.inputs[3], knobs["block"]),
        *others,
        own(written, wants.split),
    )

    def make() -> tirx.PrimFunc:
        func = te.create_prim_func(quantized.compute(spec, attributes, target, knobs))
        return backend_of(target).schedules["quantized"](func, knobs, target)

    stem = f"quantized_{spec.key.split('-pd')[0]}"
    parts = (spec.key, attributes, sorted(knobs.items()))
    kernel = named_kernel(stem, parts, [a.view for a in arguments], make)
    reason = "one product at a time: the CPU has no avx512vnni"
    if knobs.get("taps"):
        reason = "four taps an instruction"
    elif knobs["dot"]:
        reason = "four products an instruction"
    elif knobs.get("depthwise"):
        reason = "exact sums in float32"
    return Call(
        kernel, arguments, node.name, node.op, "quantized", reason, knobs, spec.key, spec.flops
    )


def _as_read(view: View, knobs: Knobs) -> View:
    """Return the data as the instruction reads them: quads of channels, rows of bytes, or bytes of which the kernel makes quads."""
    if knobs.get("row"):
        return view.in_rows()
    return view.words(4) if knobs["dot"] and not knobs.get("taps") else view


def _in_blocks(bias: np.ndarray, block: int) -> np.ndarray:
    """Return (..., K) as (..., blocks, block), padded with zeros."""
    *phases, channels = bias.shape
    padded = np.zeros((*phases, -(-channels // block) * block), bias.dtype)
    padded[..., :channels] = bias
    return padded.reshape(*phases, -1, block)
