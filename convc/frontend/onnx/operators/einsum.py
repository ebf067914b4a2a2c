"""Einsum -> transposes, reductions and matrix products, two operands at a time.

Rewrite:
    "bij,bjk->bik"
    -->
    matmul of (b, i, j) and (b, j, k): labels of both operands and the result are the batch, of both alone the sum
"""

from __future__ import annotations

import math
import string
from typing import Final

import numpy as np

from convc.errors import InvalidModelError
from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.refusal import Unsupported
from convc.ir.ops.gather import BatchAttributes
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.ops.shape import ReshapeAttributes, TransposeAttributes

__all__ = ["ROWS"]


class _Terms:
    """Operands with one label per axis; every step keeps their extents."""

    def __init__(self, node: OperatorNode) -> None:
        self.node = node
        self.extent: dict[str, int] = {}

    def note(self, value: str, labels: str) -> None:
        for label, n in zip(labels, self.node.step_type(value).shape, strict=True):
            if self.extent.setdefault(label, n) != n:
                if 1 not in (n, self.extent[label]) or not label.isupper():
                    raise InvalidModelError(
                        f"Einsum label {label} must have one extent; got {self.extent[label]} and {n}."
                    )
                self.extent[label] = max(n, self.extent[label])

    def diagonal(self, value: str, labels: str) -> tuple[str, str]:
        """Return the operand with each label once: of a repeated one the diagonal."""
        for label in dict.fromkeys(labels):
            while labels.count(label) > 1:
                first = labels.index(label)
                second = labels.index(label, first + 1)
                rest = [i for i in range(len(labels)) if i not in (first, second)]
                value = self.permute(value, (first, second, *rest))
                places = np.repeat(np.arange(self.extent[label])[:, None], 2, 1)
                index = self.node.literal(places, "int64", "diagonal")
                value = self.node.step("gather_nd", [value, index], BatchAttributes(0))
                labels = label + "".join(labels[i] for i in rest)
        return value, labels

    def permute(self, value: str, order: tuple[int, ...]) -> str:
        if order == tuple(range(len(order))):
            return value
        return self.node.step("transpose", [value], TransposeAttributes(order))

    def arrange(self, value: str, labels: str, wanted: str) -> str:
        return self.permute(value, tuple(labels.index(label) for label in wanted))

    def total(self, value: str, labels: str, kept: set[str]) -> tuple[str, str]:
        """Return the operand summed over the labels that nobody else has."""
        axes = tuple(i for i, label in enumerate(labels) if label not in kept)
        if not axes:
            return value, labels
        value = self.node.step("reduce_sum", [value], ReduceAttributes(axes, keepdims=False))
        return value, "".join(label for label in labels if label in kept)

    def product(self, a: tuple[str, str], b: tuple[str, str], kept: set[str]) -> tuple[str, str]:
        """Return the contraction of two operands over their common labels that are not kept."""
        (x, left), (y, right) = a, b
        batch = "".join(label for label in left if label in right and label in kept)
        summed = "".join(label for label in left if label in right and label not in kept)
        rows = "".join(label for label in left if label not in right)
        columns = "".join(label for label in right if label not in left)
        x = self.arrange(x, left, batch + rows + summed)
        y = self.arrange(y, right, batch + summed + columns)
        xs, ys = self.node.step_type(x).shape, self.node.step_type(y).shape
        outer = tuple(zip(xs[: len(batch)], ys[: len(batch)], strict=True))
        n = len(batch)
        m = math.prod(xs[n : n + len(rows)])
        k = math.prod(self.extent[label] for label in summed)
        p = math.prod(ys[n + len(summed) :])
        x = self.node.step("reshape", [x], ReshapeAttributes((*(e for e, _ in outer), m, k)))
        y = self.node.step("reshape", [y], ReshapeAttributes((*(e for _, e in outer), k, p)))
        z = self.node.step("matmul", [x, y])
        shape = (*(max(pair) for pair in outer), *xs[n : n + len(rows)], *ys[n + len(summed) :])
        return self.node.step("reshape", [z], ReshapeAttributes(shape)), batch + rows + columns


def einsum(node: OperatorNode) -> str:
    """Write Einsum; an ellipsis stands for axes that broadcast, for which capital letters are taken."""
    text = node.attributes.text("equation").replace(" ", "")
    left, arrow, result = text.partition("->")
    parts = left.split(",")
    if len(parts) != len(node.inputs):
        raise InvalidModelError(
            f"Einsum equation must name {len(node.inputs)} operands; got '{text}'."
        )
    spare = [c for c in string.ascii_uppercase if c not in text]
    terms = _Terms(node)
    wide = 0
    labelled: list[str] = []
    for index, part in enumerate(parts):
        hidden = node.type(index).rank - len(part.replace("...", ""))
        if hidden < 0 or (hidden and "..." not in part) or hidden > len(spare):
            raise InvalidModelError(
                f"Einsum '{part}' must have one label per axis of {node.type(index)}."
            )
        wide = max(wide, hidden)
        labelled.append(part.replace("...", "".join(spare[:hidden][::-1])))
    ellipsis = "".join(spare[:wide][::-1])
    if not arrow:
        seen = "".join(labelled)
        result = "..." if wide else ""
        result += "".join(sorted(c for c in set(seen) if seen.count(c) == 1 and c not in ellipsis))
    result = result.replace("...", ellipsis)
    if any(c not in "".join(labelled) for c in result) or len(set(result)) != len(result):
        raise InvalidModelError(
            f"Einsum result must take each label of an operand once; got '{text}'."
        )
    values = [node.value(i) for i in range(len(parts))]
    for value, labels in zip(values, labelled, strict=True):
        terms.note(value, labels)
    pairs = [terms.diagonal(v, labels) for v, labels in zip(values, labelled, strict=True)]
    kept = set(result)
    current = terms.total(*pairs[0], kept.union(*(set(labels) for _, labels in pairs[1:])))
    for i, pair in enumerate(pairs[1:], 1):
        later = kept.union(*(set(labels) for _, labels in pairs[i + 1 :]))
        other = terms.total(*pair, later | set(current[1]))
        current = terms.product(terms.total(*current, later | set(other[1])), other, later)
    value, labels = terms.total(*current, kept)
    if len(labels) != len(result):
        raise Unsupported(f"attribute equation={text}")
    order = tuple(labels.index(label) for label in result)
    return node.emit("transpose", [value], TransposeAttributes(order))


ROWS: Final = (Converter("Einsum", (12, 28), einsum),)
