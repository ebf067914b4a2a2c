"""What is to be said of a quantised model's layers: which run in slow integer loops, and which in floats although they are quantised."""

from __future__ import annotations

from collections.abc import Sequence

from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.schedules.quantized_algorithm import quantized_layer
from convc.target import Target

__all__ = ["quantized_notes"]

_LAYERS = ("conv", "conv_transpose", "dense", "matmul")


def quantized_notes(graph: Graph, target: Target) -> tuple[str, ...]:
    """Return sentences for the user, none for a model without quantised layers.

    Args:
        graph: after all passes.
        target: the machine.
    """
    layers = [n for n in graph.nodes if isinstance(n.attributes, QuantizedConvAttributes)]
    remarks: dict[str, list[Node]] = {}
    for node in layers:
        taken = quantized_layer(graph, node, target)
        if taken is None:
            continue
        if taken.algorithm is not None:
            remark = taken.algorithm.remark(taken.knobs, target)
        else:
            reasons = "; ".join(dict.fromkeys(c.reason for c in taken.candidates))
            remark = (
                f"run in plain integer loops ({reasons}). --dequantize computes them in floats."
            )
        if remark:
            remarks.setdefault(remark, []).append(node)
    notes = [f"{_named(nodes)} {remark}" for remark, nodes in remarks.items()]
    in_floats = [
        n for n in graph.nodes if n.op in _LAYERS and graph[n.inputs[0]].op == "dequantize"
    ]
    if in_floats:
        notes.append(f"{_named(in_floats)} run in float32: {_reason(graph, in_floats[0])}.")
    return tuple(notes)


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
