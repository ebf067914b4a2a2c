"""Recognise normalisations written as a dozen ops, and what scales and shifts them behind: what the passes that fuse them share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from convc.ir.graph import CONSTANT, Node
from convc.ir.ops.linear import ReduceAttributes
from convc.ir.passes.channels import is_per_channel
from convc.ir.passes.rewrite import Rewriter, read_once
from convc.ir.passes.uniform import is_uniform, uniform_element

__all__ = ["Norm", "absorbed", "full", "norm_of"]

_SCALE: Final = 1
_BIAS: Final = 2


@dataclass(frozen=True, slots=True)
class Norm:
    """(data - mean) / sqrt(variance + epsilon), times `scale` if there is one, over `axes`."""

    data: Node
    axes: tuple[int, ...]
    epsilon: float
    scale: Node | None


def _mean(r: Rewriter, node: Node) -> tuple[Node, tuple[int, ...]] | None:
    """Return the data and the axes of a mean that keeps them."""
    a = node.attributes
    if node.op != "reduce_mean" or not isinstance(a, ReduceAttributes) or not a.keepdims:
        return None
    (data,) = r.operands(node)
    return data, a.axes


def _squared(r: Rewriter, node: Node) -> Node | None:
    """Return what is multiplied by itself, as `expand_powers` writes a square, too."""
    a, *b = r.operands(node)
    return a if node.op == "mul" and b == [a] else None


def _deviation(r: Rewriter, root: Node) -> tuple[Node, tuple[int, ...], float] | None:
    """Return c, the axes and epsilon of sqrt(mean(c c) + epsilon)."""
    if root.op != "sqrt":
        return None
    (stable,) = r.operands(root)
    if stable.op != "add":
        return None
    for variance, constant in _either_way(r, stable):
        epsilon, found = uniform_element(constant), _mean(r, variance)
        centred = None if found is None else _squared(r, found[0])
        if epsilon is not None and found is not None and centred is not None:
            return centred, found[1], float(epsilon)
    return None


def norm_of(r: Rewriter, node: Node) -> Norm | None:
    """Return the normalisation whose last op this is: c / root, or c times 1 / root or scale / root."""
    if node.op == "div":
        centred, root = r.operands(node)
        return _checked(r, centred, root, None)
    if node.op != "mul":
        return None
    for centred, factor in _either_way(r, node):
        if factor.op == "reciprocal":
            found = _checked(r, centred, r.operands(factor)[0], None)
        elif factor.op == "div":
            scale, root = r.operands(factor)
            found = _checked(r, centred, root, None if is_uniform(scale, 1.0) else scale)
        else:
            continue
        if found is not None:
            return found
    return None


def _checked(r: Rewriter, centred: Node, root: Node, scale: Node | None) -> Norm | None:
    found = _deviation(r, root)
    if found is None or found[0] is not centred or centred.op != "sub":
        return None
    data, mean = r.operands(centred)
    return Norm(data, found[1], found[2], scale) if _mean(r, mean) == (data, found[1]) else None


def _either_way(r: Rewriter, node: Node) -> Iterator[tuple[Node, Node]]:
    a, b = r.operands(node)
    yield a, b
    yield b, a


def full(constant: Node, rank: int) -> np.ndarray:
    """Return a constant's value with axes of one element in front, so many that it has that rank."""
    value = constant.value
    return value.reshape((1,) * (rank - value.ndim) + value.shape)


def absorbed(r: Rewriter, node: Node, op: str, stands_for: dict[str, str]) -> bool:
    """Write a product or a sum of a normalisation and a constant along its axis as its scale and bias; return whether it is one.

    Args:
        r: the graph being written.
        node: the product or sum.
        op: the normalisation's.
        stands_for: normalisation in the new graph -> the old value that it is.
    """
    if node.op not in ("mul", "add"):
        return False
    for norm, operand in _either_way(r, node):
        if norm.op != op or operand.op != CONSTANT or norm.type != node.type:
            continue
        a: Any = norm.attributes
        scale, bias = (r.written[norm.inputs[i]] for i in (_SCALE, _BIAS))
        end = stands_for.get(norm.name)
        if end is None or not read_once(r.graph, end) or getattr(a, "epilogue", ()):
            continue
        if scale.op != CONSTANT or bias.op != CONSTANT:
            continue
        # Of a group norm scale and bias are per channel.
        if not is_per_channel(operand.type.shape, node.type, getattr(a, "axis", 1)):
            continue
        value = full(operand, node.type.rank).astype(np.float64)
        dtype, parts = (
            scale.value.dtype,
            [scale.value.astype(np.float64), bias.value.astype(np.float64)],
        )
        parts = [p * value for p in parts] if node.op == "mul" else [parts[0], parts[1] + value]
        operands = [
            r.constant(f"{node.name}_{n}", p.astype(dtype))
            for n, p in zip(("scale", "bias"), parts, strict=True)
        ]
        data = r.written[norm.inputs[0]]
        r.remove(node.name)
        r.remove(norm.name)
        r.add(node.name, op, [data, *operands], a)
        stands_for[node.name] = node.name
        return True
    return False
