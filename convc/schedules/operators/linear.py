"""Matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tvm import te, tirx, topi

from convc.ir.graph import Node
from convc.ir.types import TensorType
from convc.schedules import scalar
from convc.schedules.operators.operator import Operator, Tensors, Types
from convc.schedules.operators.single import in_single

__all__ = ["ROWS"]


def _matmul(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    a, b, *extras = tensors
    rank = node.type.rank
    k = te.reduce_axis((0, types[0].shape[-1]), "k")

    def batch_of(t: TensorType, index: Sequence[Any]) -> list[Any]:
        own = index[rank - t.rank : rank - 2]
        return [tirx.const(0, "int32") if n == 1 else i for n, i in zip(t.shape, own, strict=False)]

    def value(*i):
        left = a(*batch_of(types[0], i), i[-2], k)
        return te.sum(left * b(*batch_of(types[1], i), k, i[-1]), axis=k)

    y = te.compute(node.type.shape, value, name="matmul")
    steps: Any = node.attributes.epilogue  # type: ignore[attr-defined]
    return scalar.apply_steps(y, steps, extras, topi.add)


def _dense(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    (x, w, *extras), attributes = tensors, node.attributes
    c = te.reduce_axis((0, types[0].shape[1]), "c")
    y = te.compute(node.type.shape, lambda m, k: te.sum(x[m, c] * w[k, c], axis=c), name="dense")
    steps: Any = attributes.epilogue  # type: ignore[attr-defined]
    return scalar.apply_steps(y, steps, extras, topi.add)


ROWS: Final[dict[str, Operator]] = {
    "dense": in_single(Operator(_dense)),
    "matmul": in_single(Operator(_matmul)),
}
