"""The call of a convolution of bytes: weights packed now, data and weights seen as quads where the instruction reads them so."""

from __future__ import annotations

from tvm import te, tirx

from convc.ir.graph import Graph, Node
from convc.ir.ops.quantized import QuantizedConvAttributes, quantized_spec
from convc.lowering.named_kernel import named_kernel
from convc.lowering.places import Places
from convc.lowering.program import Argument, Call
from convc.schedules import quantized
from convc.schedules.algorithm import Operands
from convc.schedules.backend import backend_of
from convc.target import Target

__all__ = ["quantized_call"]


def quantized_call(
    graph: Graph, node: Node, wants: Operands, places: Places, target: Target
) -> Call:
    """Return the call that computes a node whose operands are in the orders that `wants` names."""
    attributes = node.attributes
    assert isinstance(attributes, QuantizedConvAttributes)
    data, weight, *_ = graph.operands(node)
    spec = quantized_spec(data.type, weight.type, attributes)
    knobs = dict(quantized.knobs(spec, target))
    packed = quantized.pack(weight.value, spec, knobs)
    least = backend_of(target).parallel_cycles
    if least is not None:
        knobs["parallel"] = int(quantized.cycles(spec, target, knobs) > least)
    read = places.read(node.inputs[0], wants.data.block, wants.border, fill=attributes.pad)
    view = read.view.raised()
    written = places.write(node)
    arguments = (
        Argument(read.buffer, view.quads() if knobs["dot"] else view),
        places.weight(f"{node.name}.weight", packed),
        *(places.bias(i, knobs["block"]) for i in node.inputs[2:4]),
        *(_raised(places.read(i, knobs["block"])) for i in node.inputs[4:]),
        _raised(written),
    )

    def make() -> tirx.PrimFunc:
        func = te.create_prim_func(quantized.compute(spec, attributes, target, knobs))
        return backend_of(target).schedules["quantized"](func, knobs, target)

    stem = f"quantized_{spec.key.split('-pd')[0]}"
    parts = (spec.key, attributes, sorted(knobs.items()))
    kernel = named_kernel(stem, parts, [a.view for a in arguments], make)
    reason = "one product at a time: the CPU has no avx512vnni"
    if knobs["dot"]:
        reason = "four products an instruction"
    elif knobs.get("depthwise"):
        reason = "exact sums in float32"
    return Call(
        kernel, arguments, node.name, node.op, "quantized", reason, knobs, spec.key, spec.flops
    )


def _raised(argument: Argument) -> Argument:
    return Argument(argument.buffer, argument.view.raised())
