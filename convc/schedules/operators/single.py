"""Operators on half-width floats compute in float32."""

from __future__ import annotations

from dataclasses import replace

from tvm import te

from convc.ir.graph import Node
from convc.ir.types import TensorType
from convc.schedules import scalar
from convc.schedules.operators.operator import Operator, Tensors, Types

__all__ = ["in_single"]


def in_single(operator: Operator) -> Operator:
    """Return an operator of half-width floats that computes in float32: a sum of 1024 terms in bfloat16 has 3 bits left.

    TVM cannot store a vector of bfloat16 sums at all.
    """

    def compute(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
        dtype = node.type.dtype
        if dtype not in ("float16", "bfloat16"):
            return operator.compute(tensors, node, types, block)
        single = [scalar.map_elements(x, lambda v: v.astype("float32")) for x in tensors]
        widened = [TensorType(t.shape, "float32") for t in types]
        result = operator.compute(single, node, widened, block)
        return scalar.map_elements(result, lambda v: v.astype(dtype))

    return replace(operator, compute=compute)
