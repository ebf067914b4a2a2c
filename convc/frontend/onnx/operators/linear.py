"""Gemm and MatMul -> dense where the right side is a weight matrix, else matmul."""

from __future__ import annotations

from typing import Final

import numpy as np

from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.refusal import Unsupported
from convc.frontend.onnx.values import is_splat
from convc.ir import Step
from convc.ir.ops.conv import DenseAttributes
from convc.ir.ops.definition import Array
from convc.ir.ops.shape import ReshapeAttributes, TransposeAttributes

__all__ = ["ROWS", "gemm", "scaled_matmul"]


def _scaled(array: Array, factor: float) -> Array:
    """Return `array * factor` in its own type; a splat stays a splat."""
    if factor == 1.0:
        return array
    if is_splat(array):
        one = array[(0,) * array.ndim]
        return np.broadcast_to((one * factor).astype(array.dtype), array.shape)
    return (array * np.float64(factor)).astype(array.dtype)


def _times(node: OperatorNode, value: str, factor: float) -> str:
    if factor == 1.0:
        return value
    return node.step("mul", [value, node.literal(factor, node.step_type(value).dtype, "factor")])


def _weight(node: OperatorNode, transposed: bool, factor: float) -> tuple[str, float]:
    """Return B as (N, K), and the factor that could not be folded into it."""
    if node.is_constant(1):
        array = node.constant(1)
        if transposed and factor == 1.0:
            return node.value(1), 1.0
        array = _scaled(array if transposed else array.T, factor)
        return node.literal(array, node.type(1).dtype, "weight"), 1.0
    b = node.value(1)
    return (b if transposed else node.step("transpose", [b], TransposeAttributes((1, 0)))), factor


def gemm(node: OperatorNode) -> str:
    """Write alpha A' B' + beta C as a dense layer; C of one value a column is its bias, any other C is added."""
    a = node.attributes
    alpha, beta = a.real("alpha", 1.0), a.real("beta", 1.0)
    if not node.type().is_float:
        raise Unsupported(f"{node.type()} (only floats)")
    transposed_a, transposed_b = a.flag("transA", False), a.flag("transB", False)
    x = node.value(0)
    if transposed_a:
        x = node.step("transpose", [x], TransposeAttributes((1, 0)))
    weight, factor = _weight(node, transposed_b, alpha)
    if not node.has(2) or beta == 0.0:
        if factor == 1.0:
            return node.emit("dense", [x, weight])
        product = node.step("dense", [x, weight])
        return node.emit("mul", [product, node.literal(factor, node.type().dtype, "alpha")])
    columns, shape = node.step_type(weight).shape[0], node.type(2).shape
    is_row = shape in ((columns,), (1, columns))
    is_scalar = all(n == 1 for n in shape) and len(shape) <= 2
    if factor == 1.0 and (is_row or is_scalar) and node.is_constant(2):
        bias = node.value(2)
        if shape != (columns,) or beta != 1.0:
            row = np.broadcast_to(_scaled(node.constant(2), beta).reshape(-1), (columns,))
            bias = node.literal(row, node.type(2).dtype, "bias")
        return node.emit("dense", [x, weight, bias], DenseAttributes((Step("bias"),)))
    if factor == 1.0 and shape == (columns,):
        bias = _times(node, node.value(2), beta)
        return node.emit("dense", [x, weight, bias], DenseAttributes((Step("bias"),)))
    product = _times(node, node.step("dense", [x, weight]), factor)
    return node.emit("add", [product, _times(node, node.value(2), beta)])


def scaled_matmul(node: OperatorNode, across: bool, down: bool, alpha: float) -> str:
    """Write alpha A' B' of matrices, or rows of them: the last two axes of A and B are exchanged where `across` and `down` say so."""
    left, right = node.type(0), node.type(1)
    if min(left.rank, right.rank) < 2:
        raise Unsupported(f"operands {left} and {right} (only matrices)")
    a = _exchanged(node, node.value(0)) if across else node.value(0)
    if left.rank == 2 and right.rank == 2 and node.is_constant(1):
        weight, factor = _weight(node, down, alpha)
        assert factor == 1.0, "a constant takes its factor in"
        return node.emit("dense", [a, weight])
    b = _exchanged(node, node.value(1)) if down else node.value(1)
    if alpha == 1.0:
        return node.emit("matmul", [a, b])
    # The smaller of the operands is scaled: in an attention the product is the largest of the three.
    if left.size <= right.size:
        a = _times(node, a, alpha)
    else:
        b = _times(node, b, alpha)
    return node.emit("matmul", [a, b])


def _exchanged(node: OperatorNode, value: str) -> str:
    *batch, rows, columns = range(node.step_type(value).rank)
    return node.step("transpose", [value], TransposeAttributes((*batch, columns, rows)))


def matmul(node: OperatorNode) -> str:
    """Write MatMul; vectors become matrices of one row or column, as in NumPy."""
    left, right = node.type(0), node.type(1)
    if left.rank == 2 and right.rank == 2 and node.is_constant(1) and left.is_float:
        return node.emit("dense", [node.value(0), _weight(node, False, 1.0)[0]])
    a, b = node.value(0), node.value(1)
    if left.rank >= 2 and right.rank >= 2:
        return node.emit("matmul", [a, b])
    if left.rank == 1:
        a = node.step("reshape", [a], ReshapeAttributes((1, *left.shape)))
    if right.rank == 1:
        b = node.step("reshape", [b], ReshapeAttributes((*right.shape, 1)))
    product = node.step("matmul", [a, b])
    *batch, rows, columns = node.step_type(product).shape
    kept = (*batch, *((rows,) if left.rank > 1 else ()), *((columns,) if right.rank > 1 else ()))
    return node.emit("reshape", [product], ReshapeAttributes(kept))


ROWS: Final = (
    Converter("Gemm", (7, 9, 11, 13), gemm),
    Converter("MatMul", (1, 9, 13), matmul),
)
