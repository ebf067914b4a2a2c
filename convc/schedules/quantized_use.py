"""What is to be said of a quantised model's layers: which run in slow integer loops, and which in floats although they are quantised."""

from __future__ import annotations

from collections.abc import Sequence

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops.quantized import QuantizedConvAttributes, quantized_spec
from convc.schedules.backend import backend_of
from convc.schedules.quads import has_dot
from convc.schedules.quantized import is_depthwise
from convc.target import Target

__all__ = ["quantized_notes"]

_LAYERS = ("conv", "conv_transpose", "dense", "matmul")


def quantized_notes(graph: Graph, target: Target) -> tuple[str, ...]:
    """Return sentences for the user, none for a model without quantised layers.

    Args:
        graph: after all passes.
        target: the machine.
    """
    # Depthwise layers have a kernel that needs no such instruction.
    layers = [
        n
        for n in graph.nodes
        if isinstance(n.attributes, QuantizedConvAttributes)
        and (target.device is not None or not _by_floats(graph, n, n.attributes))
    ]
    notes = []
    if layers and "quantized" not in backend_of(target).schedules:
        notes.append(
            f"{_named(layers)} run in plain integer loops: {target.kind} has no kernel of quantised layers. --dequantize computes them in floats."
        )
    elif layers and not has_dot(target):
        notes.append(
            f"{_named(layers)} run one product at a time: {target.mcpu} has no instruction for four (avx512vnni). "
            "--dequantize may be faster."
        )
    in_floats = [
        n for n in graph.nodes if n.op in _LAYERS and graph[n.inputs[0]].op == "dequantize"
    ]
    if in_floats:
        notes.append(f"{_named(in_floats)} run in float32: {_reason(graph, in_floats[0])}.")
    return tuple(notes)


def _by_floats(graph: Graph, node: Node, attributes: QuantizedConvAttributes) -> bool:
    data, weight = (graph[i].type for i in node.inputs[:2])
    return is_depthwise(quantized_spec(data, weight, attributes))


def _named(layers: Sequence[Node]) -> str:
    shown = ", ".join(f"'{n.name}'" for n in layers[:3])
    more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
    return f"{len(layers)} quantised layer{'s' * (len(layers) > 1)} ({shown}{more})"


def _reason(graph: Graph, layer: Node) -> str:
    """Return why a layer of dequantised data was not made one of integers."""
    source = graph[layer.inputs[0]]
    stored = graph[source.inputs[0]].type.dtype
    if any(graph[i].op != CONSTANT or graph[i].type.size > 1 for i in source.inputs[1:]):
        return f"the data of '{layer.name}' have no one constant scale"
    if stored != "uint8":
        return f"the data of '{layer.name}' are {stored}, and not quantised by the model itself, so that they cannot be moved to uint8"
    if graph[layer.inputs[1]].op != CONSTANT:
        return f"the weights of '{layer.name}' are no constants"
    return f"the weights of '{layer.name}' do not fit int8 with one scale a filter, or it is no convolution or dense layer"
