"""NegativeLogLikelihoodLoss, which SoftmaxCrossEntropyLoss is made of too."""

from __future__ import annotations

from typing import Final

from convc.errors import InvalidModelError
from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.operator_node import OperatorNode
from convc.ir.ops.linear import AxisAttributes, ReduceAttributes
from convc.ir.ops.shape import ReshapeAttributes

__all__ = ["ROWS"]


def negative_log_likelihood(node: OperatorNode) -> str:
    """Write -weight[target] input[target], summed or averaged by weight; a target of ignore_index weighs nothing."""
    a, data, target = node.attributes, node.type(0), node.type(1)
    reduction = a.text("reduction", "mean", ("none", "mean", "sum"))
    if data.rank < 2 or (data.shape[0], *data.shape[2:]) != target.shape:
        raise InvalidModelError(
            f"NegativeLogLikelihoodLoss target must be the input's without classes; got {target} for {data}."
        )
    column = ReshapeAttributes((target.shape[0], 1, *target.shape[1:]))
    places = node.step("reshape", [node.cast(node.value(1), "int64")], column)
    picked = node.step("gather_elements", [node.value(0), places], AxisAttributes(1))
    picked = node.step("reshape", [picked], ReshapeAttributes(target.shape))
    flat = node.cast(node.value(1), "int64")
    weight: str | None = None
    if node.has(2):
        weight = node.step("gather", [node.value(2), flat], AxisAttributes(0))
    if "ignore_index" in a:
        ignored = node.step(
            "equal", [flat, node.literal(a.integer("ignore_index"), "int64", "ignored")]
        )
        one = weight or node.literal(1.0, data.dtype, "one")
        weight = node.step("where", [ignored, node.literal(0.0, data.dtype, "zero"), one])
    loss = node.step("neg", [picked])
    if weight is not None:
        loss = node.step("mul", [loss, weight])
    everything = ReduceAttributes(tuple(range(target.rank)), keepdims=False)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return node.emit("reduce_sum", [loss], everything)
    if weight is None:
        return node.emit("reduce_mean", [loss], everything)
    total = node.step("reduce_sum", [loss], everything)
    return node.emit("div", [total, node.step("reduce_sum", [weight], everything)])


ROWS: Final = (Converter("NegativeLogLikelihoodLoss", (12, 13, 22), negative_log_likelihood),)
