"""Ops whose result has as many rows as the data says: loops that write one row after the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from tvm import te, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T  # noqa: N812  # TVM's own name for it

from convc.ir.graph import Node
from convc.schedules.operators.operator import Operator, Tensors, Types

__all__ = ["ROWS"]


def _integer(value: int) -> Any:
    return tirx.const(value, "int64")


def _cell() -> Any:
    """Return a local variable, written as cell[0]."""
    return T.buffer_proxy(T.alloc_buffer((1,), "int64", scope="local"))


def _rows(tensors: Tensors, node: Node, loops: Callable[..., None]) -> te.Tensor:
    """Return the rows that `loops(operands..., result)` writes, -1 where it writes none; all are indexed row-major."""

    def body(ins: Any, outs: Any) -> Any:
        with IRBuilder() as builder:
            with T.serial(0, 1):  # several statements need one around them
                result = T.buffer_proxy(outs[0])
                with T.serial(0, math.prod(node.type.shape)) as i:
                    result[i] = _integer(-1)
                loops(*map(T.buffer_proxy, ins), result)
            return builder.get()

    buffer = tirx.decl_buffer(node.type.shape, "int64", node.op)
    return te.extern([node.type.shape], list(tensors), body, dtype="int64", out_buffers=[buffer], name=node.op)  # fmt: skip


def _nms(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    """Return (image, class, box) of the boxes kept, the best first: each is compared with those kept before it.

    Source:
        github.com/onnx/onnx, docs/Operators.md, NonMaxSuppression.
    """
    a: Any = node.attributes
    (images, classes, count), dtype = types[1].shape, types[0].dtype
    zero = tirx.const(0, dtype)

    # What is used twice is bound: written out, a comparison of two boxes grows to some thousand terms (1.6 s to compile, not 0.3).
    def loops(boxes: Any, scores: Any, order: Any, result: Any) -> None:
        def sides(image: Any, box: Any) -> tuple[tuple[Any, Any], ...]:
            """Return (least, greatest) along both axes."""
            at = [T.bind(boxes[(image * count + box) * 4 + i]) for i in range(4)]
            if a.centred:
                half = tirx.const(0.5, dtype)
                ends = [(m - half * n, m + half * n) for m, n in zip(at[:2], at[2:], strict=True)]
            else:
                ends = [(tirx.min(m, n), tirx.max(m, n)) for m, n in zip(at[:2], at[2:], strict=True)]  # fmt: skip
            return tuple((T.bind(low), T.bind(high)) for low, high in ends)

        def same_object(image: Any, box: Any, other: Any) -> Any:
            one, two = sides(image, box), sides(image, other)
            lengths = [
                tirx.max(tirx.min(q, s) - tirx.max(p, r), zero)
                for (p, q), (r, s) in zip(one, two, strict=True)
            ]
            both = T.bind(lengths[0] * lengths[1])
            first, second = (T.bind((u[1] - u[0]) * (v[1] - v[0])) for u, v in (one, two))
            union = T.bind(first + second - both)
            part = both / tirx.Select(union > zero, union, tirx.const(1, dtype))
            real = tirx.all(both > zero, first > zero, second > zero, union > zero)
            return tirx.all(real, part > tirx.const(a.overlap, dtype))

        rows, begin, place, other = _cell(), _cell(), _cell(), _cell()
        rows[0] = _integer(0)
        with T.serial(0, images) as image, T.serial(0, classes) as kind:
            row = image * classes + kind
            begin[0] = rows[0]
            place[0] = _integer(0)
            with T.While(tirx.all(place[0] < count, rows[0] - begin[0] < a.most)):
                box = T.bind(order[row * count + place[0]])
                with T.If(scores[row * count + box] > tirx.const(a.score, dtype)), T.Then():
                    other[0] = begin[0]
                    with T.While(other[0] < rows[0]):
                        kept = result[other[0] * 3 + 2]
                        with T.If(same_object(image, box, kept)):
                            with T.Then():
                                other[0] = _integer(2**62)  # beyond all rows: not kept
                            with T.Else():
                                other[0] = other[0] + 1
                    with T.If(other[0] == rows[0]), T.Then():
                        result[rows[0] * 3] = image.astype("int64")
                        result[rows[0] * 3 + 1] = kind.astype("int64")
                        result[rows[0] * 3 + 2] = box
                        rows[0] = rows[0] + 1
                place[0] = place[0] + 1

    return _rows(tensors, node, loops)


def _nonzero(tensors: Tensors, node: Node, types: Types, block: int) -> te.Tensor:
    """Return the places of what is not 0, in row-major order, one in each column."""
    shape, dtype = types[0].shape, types[0].dtype
    size = math.prod(shape)

    def loops(data: Any, result: Any) -> None:
        columns = _cell()
        columns[0] = _integer(0)
        with T.serial(0, size) as i:
            value = data[i]
            there = value if dtype == "bool" else value != tirx.const(0, dtype)
            with T.If(there), T.Then():
                inner = size
                for axis, extent in enumerate(shape):
                    inner //= extent
                    place = i // inner % extent
                    result[axis * size + columns[0]] = place.astype("int64")
                columns[0] = columns[0] + 1

    return _rows(tensors, node, loops)


ROWS: Final[dict[str, Operator]] = {
    "nms": Operator(_nms),
    "nonzero": Operator(_nonzero),
}
